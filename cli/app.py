"""The entry point `distill`: registers the commands and leaves quietly when nobody reads the output any more.

Only typer is imported here and in the command files; each command imports what it needs when it runs, so that
`distill --help` answers at once.
"""

import os
import sys
from typing import Annotated

import typer
import typer.core

from cli.evaluation.evaluate import evaluate
from cli.evaluation.predict import predict
from cli.hub import models, trust
from cli.hub.train_global import train_global
from cli.institution import bundle, keys, schema
from cli.institution.fit import fit
from cli.institution.init import init
from cli.institution.plan import plan
from cli.ledger import audit, books, members
from cli.research import federated
from cli.research.compare import compare
from cli.research.demo import demo
from cli.shared.output import EXIT_REFUSED
from distill import __version__

BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it

typer.core.HAS_RICH = False  # rich prints none of our help, yet typer 0.20 escapes brackets for it: "\\[default: 5]"

app = typer.Typer(
    name="distill",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a trace with values in it could quote a private row
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        print(f"distill {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Distil private tables into signed, differentially private bundles, and train one model from them.

    At each institution: init, ledger grant, plan, fit. At the hub: hub trust add, train-global.
    """


app.command()(init)
app.add_typer(schema.app, name="schema")
keys.app.command()(members.rotate)
app.add_typer(keys.app, name="keys")
for command in (audit.report, audit.export, audit.diff):
    books.app.command()(command)
app.add_typer(books.app, name="ledger")
app.command()(plan)
app.command()(fit)
app.add_typer(bundle.app, name="bundle")
app.add_typer(trust.app, name="hub")
app.command("train-global")(train_global)
app.add_typer(models.app, name="models")
app.command()(evaluate)
app.command()(predict)
app.command()(demo)
app.command()(compare)
app.add_typer(federated.app, name="federated")


def main() -> None:
    """Run the command line."""
    try:
        try:
            app(prog_name="distill")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # the last of the output could not be written
        _discard_output()
        print(f"error: cannot write the output: {error.strerror}.", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


def _discard_output() -> None:
    """Give Python, which flushes once more at exit, somewhere to flush to, or it would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
