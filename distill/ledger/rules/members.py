"""Whose key may sign which kind of entry: officers grant, operators spend, and either may hand over to a new key.

The first entry names the first members. The rules here are those of the ledger that is written, of the auditor who reads
it whole, and of the hub, which sees a part of it. A broken rule raises ValueError with the problem in a few words.
"""

from distill.common.canonical_json import canonical
from distill.common.keys import SigningKey, verify_signature
from distill.ledger.entries.bodies import EnrolBody, Member, OpenBody, RetireBody, Role, RotateBody
from distill.ledger.entries.entry import Entry

_ROTATE_DOMAIN = b"distill key rotation 1\n"
SIGNED_BY: dict[str, Role] = {
    **dict.fromkeys(("grant", "enrol", "retire", "link", "resolve"), "officer"),
    **dict.fromkeys(("reserve", "plan", "commit", "abandon"), "operator"),
}  # `open` and `rotate` are signed by a member of either role


class Members:
    """The officers and operators after some entries."""

    def __init__(self) -> None:
        """Before the first entry there is nobody."""
        self._names: dict[Role, dict[str, str]] = {"officer": {}, "operator": {}}
        self._gone: dict[str, str] = {}

    @property
    def all(self) -> tuple[Member, ...]:
        """Everyone who may sign now."""
        return tuple(
            Member(role=role, name=name, public_key=key)
            for role, names in self._names.items()
            for key, name in names.items()
        )

    def holds(self, role: Role, public_key: str) -> bool:
        """Whether the key may sign in this role."""
        return public_key in self._names[role]

    def knew(self, public_key: str) -> bool:
        """Whether the key is, or ever was, a member's."""
        return public_key in self._gone or any(self.holds(role, public_key) for role in self._names)

    def of(self, role: Role) -> tuple[Member, ...]:
        """Everyone in this role."""
        return tuple(m for m in self.all if m.role == role)

    def check(self, entry: Entry) -> None:
        """The signer of `entry` may sign entries of its kind. Raises ValueError."""
        role, key = SIGNED_BY.get(entry.kind), entry.public_key
        if role is None:
            if entry.kind == "open" or any(self.holds(r, key) for r in self._names):
                return
            raise ValueError(f"its signer {key[:16]}... {self._gone.get(key, 'is no member of this ledger')}")
        if self.holds(role, key):
            return
        gone = self._gone.get(key, f"is no {role} of this ledger")
        raise ValueError(f"{entry.kind} entries are signed by an {role}, and {key[:16]}... {gone}")

    def apply(self, entry: Entry) -> None:
        """Take note of an entry that changes who may sign; others change nothing. Raises ValueError."""
        match entry.details:
            case OpenBody() as body:
                for member in body.members:
                    self._add(member)
                if entry.public_key not in {m.public_key for m in body.members}:
                    raise ValueError("its signer is not among the members that it names")
                if not self._names["officer"]:
                    raise ValueError("it names no officer, so nobody could ever grant")
            case EnrolBody() as body:
                self._add(body.member)
            case RetireBody() as body:
                self._retire(body)
            case RotateBody() as body:
                self._rotate(entry, body)

    def _add(self, member: Member) -> None:
        if self.holds(member.role, member.public_key):
            raise ValueError(f"key {member.public_key[:16]}... is an {member.role} already")
        if member.public_key in self._gone:
            raise ValueError(f"key {member.public_key[:16]}... {self._gone[member.public_key]}; use a new key")
        self._names[member.role][member.public_key] = member.name

    def _retire(self, body: RetireBody) -> None:
        if not self.holds(body.role, body.public_key):
            raise ValueError(f"key {body.public_key[:16]}... is no {body.role} of this ledger")
        if body.role == "officer" and len(self._names["officer"]) == 1:
            raise ValueError("the last officer cannot be retired: enrol another first")
        del self._names[body.role][body.public_key]
        if not any(self.holds(role, body.public_key) for role in self._names):
            self._gone[body.public_key] = "was retired"

    def _rotate(self, entry: Entry, body: RotateBody) -> None:
        old, new = entry.public_key, body.new_key
        if self.knew(new):
            raise ValueError("the new key is, or was, a member already")
        if not verify_signature(new, bytes.fromhex(body.cross_signature), _handover(entry.dataset, old, new)):
            raise ValueError("the new key did not sign the handover")
        for names in self._names.values():
            if old in names:
                names[new] = names.pop(old)
        self._gone[old] = f"was replaced by {new[:16]}..."


def cross_sign(new: SigningKey, *, dataset: str, old_key: str) -> str:
    """The new key's word (hex) that it takes over from `old_key` in the ledger of `dataset`."""
    return new.sign(_handover(dataset, old_key, new.public_hex)).hex()


def _handover(dataset: str, old: str, new: str) -> bytes:
    return _ROTATE_DOMAIN + canonical({"dataset": dataset, "old": old, "new": new})
