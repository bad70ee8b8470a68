"""Who may send bundles to this hub: keys that a person compared by another way, and keys that those handed over to."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distill.errors import UntrustedSignerError
from distill.exchange.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """One key that the hub trusts, or once did.

    Attributes:
        public_key: Hex.
        name: What the hub calls its owner; no two trusted keys share one.
        added, added_by: When (UTC, ISO) and by whom.
        note: How it came here, if not by hand.
        removed: Since when it is trusted no longer; None: it is.
    """

    public_key: str
    name: str
    added: str
    added_by: str
    note: str = ""
    removed: str | None = None


class Signers:
    """The keys that this run trusts."""

    def __init__(self, kept: Iterable[TrustedKey], also: frozenset[str], store: Path | None) -> None:
        """Trust the keys that the hub keeps, and `also` (hex) for this run; `store` is where more can be added."""
        keys = tuple(kept)
        self._trusted = also | {k.public_key for k in keys if k.removed is None}
        self._removed = {k.public_key: k for k in keys if k.removed is not None and k.public_key not in also}
        self._store = store

    def voucher(self, bundle: Bundle) -> str | None:
        """The trusted key that speaks for a bundle: its signer, or the nearest one that handed over to it; else None.

        A key that was taken back ends the search, so nobody who got hold of it can hand over to another.
        """
        for key in (bundle.manifest.public_key, *bundle.proven.predecessors):
            if key in self._trusted or key in self._removed:
                return key if key in self._trusted else None
        return None

    def refusal(self, bundle: Bundle) -> UntrustedSignerError:
        """What to tell about a bundle that nobody speaks for."""
        key, name = bundle.manifest.public_key, bundle.manifest.institution
        gone = next((k for k in (key, *bundle.proven.predecessors) if k in self._removed), None)
        taken_back = (
            "" if gone is None else f" (trust in {gone[:16]}... was taken back on {self._removed[gone].removed})"
        )
        place = "" if self._store is None else f" --hub {shlex.quote(str(self._store))}"
        return UntrustedSignerError(
            f"{bundle.path}: nobody vouched for its signer{taken_back}. It says it is of {name!r} and is signed with key {key}. Ask "
            "the institution for its public key by another way than the bundle came, compare all of it, and then run "
            f"`distill hub trust add KEY.pub --name {shlex.quote(name)}{place}`. (For a trial: --allow-unknown-signers.)"
        )
