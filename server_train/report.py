"""The report of one global training: one HTML file that needs nothing beside it.

It is drawn from the model card alone, so a saved model can be reported again. Names in bundles are other people's text:
the template escapes all of it, and figures are embedded as images, which run nothing.
"""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment

from distill.figures import INK, MUTED, PALETTE, data_uri, empty_figure, templates_of
from server_train.model import ModelCard

TEMPLATE = "report.html"


def render_report(card: ModelCard) -> str:
    """The report as HTML text."""
    return (
        templates()
        .get_template(TEMPLATE)
        .render(
            card=card,
            schema=card.schema_,
            classes=list(card.outputs),
            training=card.training,
            members=card.institutions,
            privacy=card.privacy,
            palette=PALETTE,
            total_bytes=sum(int(m["bytes"]) for m in card.institutions),
            curve_figure=learning_curve(card.training),
            weights_figure=weights(card.institutions),
        )
    )


def templates() -> Environment:
    """The templates of all reports of the hub."""
    return templates_of(
        "server_train",
        size=readable_bytes,
        number=readable_number,
        percent=readable_percent,
        tiny=readable_tiny,
        short=short,
    )


def learning_curve(training: dict[str, Any]) -> str:
    """Training and held-out loss by epoch as a data URI."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = empty_figure(6.6, 3.1)
    epochs, used, held_out = zip(*training["curve"], strict=True)
    axes.plot(epochs, used, color=PALETTE[1], lw=1.8, label="rows trained on")
    axes.plot(epochs, held_out, color=PALETTE[0], lw=2.2, label="held-out synthetic rows")
    best = training["best_epoch"]
    if best:  # else a constant was best
        axes.plot([best], [held_out[epochs.index(best)]], "o", ms=7, color=PALETTE[0], mec="white", mew=1.5, zorder=5)
    axes.axhline(training["loss_floor"], color=MUTED, lw=1.1, ls=(0, (4, 3)), label="floor: entropy of the soft labels")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return data_uri(figure, "curve")


def weights(members: Sequence[dict[str, Any]]) -> str:
    """Each institution's share of the pooled rows and of the class head, as a data URI."""
    figure, axes = empty_figure(10.2, 0.7 + 0.58 * len(members))
    names = [m["institution"] if len(m["institution"]) <= 24 else m["institution"][:23] + "…" for m in members]
    places = range(len(members))
    for offset, key, colour, label in [
        (-0.19, "row_share", PALETTE[0], "rows"),
        (0.19, "head_share", PALETTE[1], "class head"),
    ]:
        shares = [m[key] for m in members]
        bars = axes.barh([p + offset for p in places], shares, height=0.34, color=colour, label=label)
        axes.bar_label(bars, [readable_percent(s) for s in shares], padding=4, fontsize=8.5, color=INK)
    # An institution's name is plain text here, never a formula between dollar signs.
    axes.set_yticks(list(places), names, parse_math=False)
    axes.set_ylim(len(members) - 0.45, -0.55)
    axes.set_xlim(0, max(0.05, *(max(m["row_share"], m["head_share"]) for m in members)) * 1.16)
    axes.xaxis.set_visible(False)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return data_uri(figure, "weights")


def readable_bytes(count: float) -> str:
    """Bytes as 812 B, 52.3 kB or 1.4 MB."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def readable_number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def readable_percent(share: float) -> str:
    """A share in per cent: one digit below 10 %, and small ones that are not zero stay visible."""
    if share == 0:
        return "0 %"
    if share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"


def readable_tiny(value: float) -> str:
    """A delta as 1e-5 or 3.2e-6."""
    if value <= 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def short(digest: str) -> str:
    """The first twelve digits of a digest or key."""
    return digest[:12] + "…" if len(digest) > 12 else digest
