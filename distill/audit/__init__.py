"""What a privacy officer reads and hands on: the audit report, exports of the ledger, and what sets two copies apart.

Everything here starts from a ledger that was verified, and reads no row. Every figure is computed from its entries.

    meaning   what (epsilon, delta) lets an attacker learn       linked    data sets that share customers, added up
    curves    epsilon against delta                              words     the worlds, units and reads in plain words
    history   the books over time, and who could sign            report    all of it together; `page` draws it
    export    the ledger as one JSON file                        registry  an entry for the public registry
    diff      two copies of a ledger, compared
"""

from distill.audit.deployments import registry_entry
from distill.audit.diff import Comparison, compare, read_chain
from distill.audit.export import export_ledger
from distill.audit.report.contents import Audit, audit
from distill.audit.report.linked import Linked, add_up
from distill.audit.report.risk import bounded_posterior, most_detected

__all__ = [
    "Audit",
    "Comparison",
    "Linked",
    "add_up",
    "audit",
    "bounded_posterior",
    "compare",
    "export_ledger",
    "most_detected",
    "read_chain",
    "registry_entry",
]
