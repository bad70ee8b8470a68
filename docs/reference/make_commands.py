"""Print the reference of all commands as Markdown: `python docs/reference/make_commands.py > docs/reference/commands.md`.

It is made from the commands themselves, and a test compares it with the page.
"""

import click
import typer.main

from cli.app import app

HEAD = """# Commands

Made by `make_commands.py` from the commands themselves. All take `--help`; most that print results take `--json`. They read
`distill.toml` of the current folder, or of `--project DIR`: see [project.md](project.md).
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{section}" for section in _sections(typer.main.get_command(app), "distill"))


def _sections(command: click.Command, name: str) -> list[str]:
    """A section for each command that does something, in the order of their names."""
    if isinstance(command, click.Group):
        parts = []
        for word, inner in sorted(command.commands.items()):
            parts += _sections(inner, f"{name} {word}")
        return parts
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name != "help"]
    usage = " ".join([name, *(_placed(p) for p in arguments)])
    lines = [f"## {name}", "", " ".join((command.help or "").split()), "", f"    {usage} [OPTIONS]", ""]
    if arguments or options:
        lines += ["| argument or option | meaning |", "|---|---|"]
    lines += [f"| `{_placed(p)}` | {_said(p)} |" for p in arguments]
    lines += [f"| `{_spelt(p)}` | {_said(p)} |" for p in options]
    return ["\n".join(lines).rstrip() + "\n"]


def _placed(argument: click.Argument) -> str:
    """An argument as usage shows it."""
    name = (argument.metavar or argument.human_readable_name).upper().strip("[]")
    name = name.removesuffix("...") + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _spelt(option: click.Option) -> str:
    """All names of an option, with what it takes."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'/'.join(map(str, option.type.choices))}"
    return f"{names} {(option.metavar or option.type.name.split()[0]).upper()}"


def _said(parameter: click.Parameter) -> str:
    """What help says of a parameter, its default and whether it must be given, on one line."""
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    default = parameter.default
    if isinstance(parameter, click.Option) and parameter.required:
        text += " (must be given)"
    elif isinstance(default, int | float | str) and not isinstance(default, bool):
        text += f" (default: {default})"
    return text.strip()


if __name__ == "__main__":
    print(page(), end="")
