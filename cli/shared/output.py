"""What every command shares: how results and errors leave it, the usual options, the console for progress.

Results go to stdout (with --json: one JSON object and nothing else), everything else to stderr. Exit codes: 0 done,
2 refused (a `DistillError`, a disk or permission problem, wrong usage), 130 interrupted, 1 a defect of this software.
No error text quotes a private value: of an unexpected exception only its type and the places in the code are shown,
since its message may hold a piece of the table.
"""

import errno
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from distill.errors import DistillError
from distill.exchange.levels import Level

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from distill.data.schema import Schema
    from distill.project import Project

EXIT_DEFECT, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
DEBUG_VARIABLE = "DISTILL_DEBUG"

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
MODEL_HELP = "Folder of a model, its model.json or model.onnx; or a registry: models.db (its current version), models.db@3 (version 3)."
ProjectOption = Annotated[Path, typer.Option("--project", help="Folder that holds distill.toml.", metavar="DIR")]
RowsPerUnitOption = Annotated[
    int,
    typer.Option(
        "--max-rows-per-unit",
        help="Rows of one unit that count at most, drawn at random; above 1 the schema must name a `unit` column, and all noise "
        "grows with this number.",
        min=1,
        metavar="M",
    ),
]
CompressOption = Annotated[
    Level,
    typer.Option(
        "--compress",
        help="How much travels: full (all soft records, critic, refined rows), default (representatives and statistics), "
        "compact (class histograms and class head).",
    ),
]


@dataclass(frozen=True)
class Report:
    """Prints a command's result: one JSON object if `as_json`, else text or anything that rich can render."""

    as_json: bool

    def __call__(self, payload: dict[str, Any], text: "RenderableType | None" = None) -> None:
        """Print `payload` as JSON or `text` for people; without `text`, people see the payload's keys and values."""
        if self.as_json:
            print(json.dumps(_plain(payload), ensure_ascii=False, allow_nan=False))
        elif text is None:
            print("\n".join(f"{key}: {_plain(value)}" for key, value in payload.items()))
        elif isinstance(text, str):
            print(text)
        else:
            stdout_console().print(text)

    def note(self, text: str) -> None:
        """Tell a person something beside the result; goes to stderr, so it never mixes with JSON."""
        print(text, file=sys.stderr)


@contextmanager
def reporting(as_json: bool, *, interrupted: str = "Nothing more was done.") -> Iterator[Report]:
    """Run a command's body; an error becomes one line (or one JSON object) on stderr and an exit code.

    Args:
        as_json: Whether results and errors are JSON objects.
        interrupted: What Ctrl-C leaves behind, said in the line that reports it.
    """
    try:
        yield Report(as_json)
    except DistillError as error:
        _leave(as_json, type(error).__name__, str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        _leave(as_json, "Interrupted", f"interrupted. {interrupted}", EXIT_INTERRUPTED)
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise  # typer's own ways out; and `cli.app.main` leaves quietly when nobody reads our output any more
    except OSError as error:
        _leave(as_json, "OSError", _disk_problem(error), EXIT_REFUSED)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        _leave(as_json, "Defect", _defect(error), EXIT_DEFECT)


def project_at(folder: Path) -> "Project":
    """The project of `folder` (its distill.toml); raises ConfigError, so call it inside `reporting`."""
    from distill.project import Project

    return Project.open(folder)


def task_in_words(schema: "Schema") -> str:
    """What a schema asks to predict, in a few words."""
    if schema.task is None:
        return "no target: nothing is predicted"
    kind = f"with {len(schema.classes)} classes" if schema.task == "classes" else "is a number"
    return f"target {schema.target!r} {kind}"


def stdout_console() -> "Console":
    """A rich console for results; markup is off, so column names in brackets print as they are."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def progress_console(*, quiet: bool = False) -> "Console":
    """A rich console on stderr for progress and receipts; `quiet` (as with --json) shows nothing."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=quiet)


def _leave(as_json: bool, kind: str, message: str, code: int) -> NoReturn:
    """Say what went wrong on stderr and exit."""
    body = {"error": {"type": kind, "message": message}}
    line = f"error: {' '.join(message.split())}" if kind != "Defect" else f"error: {message}"
    print(json.dumps(body, ensure_ascii=False) if as_json else line, file=sys.stderr)
    raise typer.Exit(code) from None


def _disk_problem(error: OSError) -> str:
    """An OSError in plain words: which file, what happened, the mend where one is known."""
    mends = {
        errno.ENOSPC: "Free some space (or choose another folder) and run the command again.",
        errno.EDQUOT: "Your disk quota is used up: free some space and run the command again.",
        errno.EACCES: "Check the permissions of the file and its folder.",
        errno.EPERM: "Check the permissions of the file and its folder.",
        errno.EROFS: "Choose a folder that can be written to.",
        errno.ENOENT: "Check the path.",
        errno.EISDIR: "Name a file, not a directory.",
        errno.ENOTDIR: "Check the path: a part of it is a file, not a directory.",
    }
    what = error.strerror or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{what}. {mends.get(error.errno or 0, '')}".strip()


def _defect(error: BaseException) -> str:
    """An unexpected exception without its message: the type and where in the code it arose."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"  {Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return (
        f"unexpected {type(error).__name__}; this is a defect of distill. Its message is withheld because it may quote "
        f"private values ({DEBUG_VARIABLE}=1 shows it). Please report these places:\n" + "\n".join(places[-8:])
    )


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: paths and other objects as text, numbers that JSON lacks as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json", by_alias=True))
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
