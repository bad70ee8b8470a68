"""The audit report as one HTML page: no script, no file beside it, and nothing is fetched. It prints to PDF as it stands."""

import math
from datetime import datetime

from jinja2 import Environment

from distill.audit.report.charts import all_figures
from distill.audit.report.contents import Audit
from distill.audit.report.wording import charge_in_words, read_in_words
from distill.common.checks import within
from distill.common.report_style import templates_of

TEMPLATE = "audit.html"


def render(audit: Audit) -> str:
    """The report as HTML text. Whatever people wrote into the ledger is escaped."""
    summary = audit.summary
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            audit=audit,
            summary=summary,
            found=audit.verification,
            linked=audit.linked,
            figures=all_figures(audit),
            overspent=not within(summary.spent_epsilon, summary.granted_epsilon),
            rehearsals=[r for r in summary.releases if r.rehearsal],
        )
    )


def _environment() -> Environment:
    return templates_of(
        __package__,
        eps=epsilon_text,
        delta=delta_text,
        most=most_percent,
        least=least_percent,
        day=day_text,
        read=read_in_words,
        charge=charge_in_words,
    )


def epsilon_text(value: float) -> str:
    """An epsilon with four digits."""
    return f"{value:.4g}"


def delta_text(value: float) -> str:
    """A delta as it is typed, and as odds: `1e-05 (1 in 100,000)`."""
    return f"{value:.3g} (1 in {1 / value:,.0f})" if value else "0"


def most_percent(share: float) -> str:
    """An upper bound in per cent, rounded up, so that it stays one."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"


def least_percent(share: float) -> str:
    """A lower bound in per cent, rounded down; below 0.1 % to its first digit, if there is one among the first six."""
    digits = 1 if share >= 0.001 or share < 1e-8 else -math.floor(math.log10(share * 100))
    return f"{math.floor(share * 100 * 10**digits + 1e-9) / 10**digits:.{digits}f} %"


def day_text(time: str) -> str:
    """The day of an entry: `3 March 2026`."""
    moment = datetime.fromisoformat(time)
    return f"{moment.day} {moment:%B %Y}"
