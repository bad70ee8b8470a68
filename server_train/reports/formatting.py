"""How the hub's pages write figures, and where their templates are."""

from collections.abc import Sequence

from jinja2 import Environment

from distill.common.report_style import templates_of
from distill.data.schema import Column
from server_train.models.cards import ClassCurves
from server_train.reports.contribution_terms import Term, reasons_of, terms_in

MOST_CATEGORIES = 6  # of a column, listed by name


def calibration_error(curves: Sequence[ClassCurves]) -> float:
    """Mean distance of frequency from predicted chance, over tenths of the rows and the classes that have a curve."""
    tenths = [c.calibration for c in curves]
    gaps = [abs(p - o) * n for t in tenths for p, o, n in zip(t.predicted, t.observed, t.rows, strict=True)]
    return float(sum(gaps) / sum(n for t in tenths for n in t.rows))


def templates() -> Environment:
    """The templates of all reports of the hub."""
    return templates_of(
        __package__,
        size=readable_bytes,
        number=readable_number,
        percent=readable_percent,
        tiny=readable_tiny,
        short=short,
        term=readable_term,
        terms_in=terms_in,
        reasons=reasons_of,
        calibration_error=calibration_error,
        column=readable_column,
        zip=zip,
    )


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


def readable_term(value: float | None, term: Term) -> str:
    """A term's value in its own form; a dash for none."""
    if value is None or term.form == "count":
        return readable_number(value)
    return readable_percent(value) if term.form == "share" and 0 <= value <= 1 else f"{value:.3g}"


def readable_column(column: Column) -> str:
    """What values a column takes, in a few words."""
    if column.kind != "categorical":
        return f"{column.kind}, {column.min:g} to {column.max:g}"
    names = [str(c) for c in column.categories or ()]
    more = f" … {len(names)} in all" if len(names) > MOST_CATEGORIES else ""
    return f"one of {', '.join(names[:MOST_CATEGORIES])}{more}{', or another' if column.other else ''}"
