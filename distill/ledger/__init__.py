"""The privacy ledger: what was granted, what was spent on what, and the proof of both.

Append-only, one ledger a data set. A *grant*, signed by a privacy officer, says what all releases together may spend. A
release is *reserved* in full before the first read, *planned* once its noisy size is known, and *committed* with its
bundle's digest, all signed by an operator; if the process dies, the reservation stands and counts as spent. Entries are
chained by hashes and signed; the end of the chain carries a signed seal.

What `verify` proves: nothing was changed, removed, put in or cut off by anyone without a key, and every epsilon follows
from the recorded noise by two accountants. What it cannot see by itself: the whole file replaced by an older copy of
itself, or two copies used side by side. Heads that left the house catch that: each bundle carries one, with the chain
that leads to it.

    bodies        what each kind of entry says         store        the SQLite file
    entry         hash, signature, form                budget       how releases add up against a grant
    members       who may sign what                    releases     one release and its next step
    state         all rules, one entry after the other reservation  a release under way
    audit         reading and recomputing all of it    proof        the part that travels in a bundle
    books         `Ledger`: the door to all this
"""

from distill.common.metadata import acting_user
from distill.ledger.entries.bodies import REHEARSAL, Member
from distill.ledger.entries.entry import RELATION, Entry
from distill.ledger.ledger import Ledger, create_ledger, open_ledger
from distill.ledger.reservation import Reservation
from distill.ledger.rules.release import Release
from distill.ledger.verification import AuditedRelease, LedgerSummary, Verification

__all__ = [
    "REHEARSAL",
    "RELATION",
    "AuditedRelease",
    "Entry",
    "Ledger",
    "LedgerSummary",
    "Member",
    "Release",
    "Reservation",
    "Verification",
    "acting_user",
    "create_ledger",
    "open_ledger",
]
