"""Who is let in: whose bundles a hub takes, and what it remembers of them."""

from dataclasses import dataclass

from server_train.intake.store import HubStore


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whose bundles are taken.

    Attributes:
        trusted: Public keys (hex) of institutions, beside those that `hub` keeps. Every bundle must be signed by one, or by
            a key that one handed over to.
        hub: The hub's memory: trusted keys, and what was seen of each ledger. None: nothing is known and nothing remembered.
        remember: Whether bundles of trusted signers, if all is well, become part of that memory.
        allow_unknown_signers: Let bundles of others in too. They are not remembered, or a stranger could block a data set
            by being first.
        allow_rehearsal: Let bundles in that are not private.
    """

    trusted: frozenset[str] = frozenset()
    hub: HubStore | None = None
    remember: bool = True
    allow_unknown_signers: bool = False
    allow_rehearsal: bool = False
