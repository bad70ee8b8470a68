"""How all reports look: their templates, and their figures, which are put into the page as images and need no file."""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1d2b3a", "#6b7a8c", "#e3e8ee"
PALETTE = ("#0f6e84", "#e2a13b", "#7a5ea8", "#c8553d", "#4f9d69", "#3f6fb5", "#a8577e", "#8a8f3c")


def empty_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure in the reports' colours; drawn without pyplot, so no window system and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: "Axes") -> None:
    """Give axes the reports' colours."""
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c2cc")
    axes.tick_params(which="both", colors=INK, labelsize=9, color="#b8c2cc")
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)


def data_uri(figure: "Figure", salt: str) -> str:
    """A figure as an SVG image to put into `src`; the same figure gives the same text."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def templates_of(package: str, **filters: Callable[..., Any]) -> "Environment":
    """The report templates of a package: everything they show is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
