"""Progress of long work on stderr: one bar a stage, shown when the stage begins."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bars(
    console: "Console", names: Mapping[str, str] | None = None, *, counted: bool = False
) -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar a stage, and nothing before the first stage begins, for a refusal is one line.

    Args:
        console: Console that the bars are drawn on; see `output.progress_console`.
        names: What to call each stage; a stage that is not there goes by its own name.
        counted: Whether steps done and in all are shown, rather than a percentage.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    names = names or {}
    width = max([34, *(len(name) for name in names.values())])
    done_so_far = MofNCompleteColumn() if counted else TextColumn("{task.percentage:>3.0f} %")
    bars = Progress(
        TextColumn(f"{{task.description:<{width}}}"), BarColumn(), done_so_far, TimeElapsedColumn(), console=console
    )
    tasks: dict[str, TaskID] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            bars.start()
            tasks[stage] = bars.add_task(names.get(stage, stage), total=total)
        bars.update(tasks[stage], completed=done, total=total)

    try:
        yield progress
    finally:
        if tasks:
            bars.stop()
