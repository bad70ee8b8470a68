"""What one ledger entry holds, how it is hashed and signed, and how a reader checks it.

An entry is public: purposes, budgets and noise scales, never a count or a value of the private table. Its hash covers
everything but the hash and the signature, `previous` chains it to the entry before, and the signature is over the hash.
"""

import getpass
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from distill.accounting import EVENT_FORMAT, Event
from distill.canonical import canonical, parse_canonical
from distill.errors import ConfigError
from distill.keys import SigningKey, is_public_hex, verify_signature

LEDGER_FORMAT = 1
RELATION = "add or remove one unit"
REHEARSAL = "REHEARSAL, NOT PRIVATE"
NO_HASH = "0" * 64  # `previous` of the first entry
MAX_ENTRY_BYTES = 1 << 20
MAX_STEPS = 1_000_000
_ENTRY_DOMAIN = b"distill ledger entry 1\n"  # one key signs entries, heads and bundles: no signature fits two of them
_HEAD_DOMAIN = b"distill ledger head 1\n"

Kind = Literal["open", "grant", "reserve", "plan", "commit", "abandon"]


def _printable(text: str) -> str:
    """One line without control characters: a ledger is read in a terminal."""
    if not text.isprintable() or not text.strip():
        raise ValueError("must be one line of printable text")
    return text


def _utc(text: str) -> str:
    """An ISO time in UTC."""
    if datetime.fromisoformat(text).utcoffset() != datetime.now(UTC).utcoffset():
        raise ValueError("must be a time in UTC")
    return text


def _bounded(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Names and purposes are printable, and steps are few enough to be recomputed (plain Gaussians merge into one)."""
    if sum(e.count for e in events if e.mechanism != "gaussian") > MAX_STEPS:
        raise ValueError(f"more than {MAX_STEPS} steps cannot be accounted for")
    if not all(e.name.isprintable() and e.purpose.isprintable() for e in events):
        raise ValueError("names and purposes must be one line of printable text")
    return events


Line = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Time = Annotated[str, Field(max_length=40), AfterValidator(_utc)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ReleaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Epsilon = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]  # beyond that nothing is private
Delta = Annotated[float, Field(gt=0, lt=1e-2, allow_inf_nan=False)]
Total = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Events = Annotated[tuple[Event, ...], Field(min_length=1, max_length=100), AfterValidator(_bounded)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Charge(_Body):
    """What every step of a release states.

    Attributes:
        release: Which release.
        epsilon_release: What all its events so far cost at its delta (one joint privacy loss distribution a round).
        epsilon_total, delta_total: Spent by all releases after this entry, as the grant counts it.
    """

    release: ReleaseId
    epsilon_release: Epsilon
    epsilon_total: Total
    delta_total: Total


class OpenBody(_Body):
    """The first entry."""

    format: Literal[1]
    event_format: Literal[1]


class GrantBody(_Body):
    """What all releases together may spend from now on; replaces the grant before."""

    epsilon: Epsilon
    delta: Delta
    reason: Line


class ReserveBody(_Charge):
    """A release begins: its whole budget (epsilon, delta) is set aside before the first read, round 0 is planned."""

    purpose: Line
    rehearsal: bool
    warning: Literal["", "REHEARSAL, NOT PRIVATE"]
    epsilon: Epsilon
    delta: Delta
    events: Events


class PlanBody(_Charge):
    """The later rounds of a release."""

    events: Events


class CommitBody(_Charge):
    """The release was made."""

    bundle: Hash


class AbandonBody(_Charge):
    """The release ended after round 0; only that is charged."""

    reason: Line


Body = OpenBody | GrantBody | ReserveBody | PlanBody | CommitBody | AbandonBody
_BODIES: dict[str, type[Body]] = {
    "open": OpenBody,
    "grant": GrantBody,
    "reserve": ReserveBody,
    "plan": PlanBody,
    "commit": CommitBody,
    "abandon": AbandonBody,
}


class Entry(BaseModel):
    """One signed entry of the ledger.

    Attributes:
        sequence: 1, 2, 3 ... without gaps.
        previous: Hash of the entry before; zeros for the first.
        time: UTC, ISO.
        actor: Who acted.
        kind: `open`, `grant`, `reserve`, `plan`, `commit` or `abandon`.
        software: That wrote the entry, with its version.
        dataset: Random id of the data set.
        unit: Whose privacy is counted: a row, or an entity.
        relation: Which tables count as neighbours.
        body: What this kind of entry says; `details` is the checked form.
        hash: SHA-256 of the canonical JSON of everything but hash and signature.
        public_key: Of the signer.
        signature: Ed25519 over the hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int = Field(ge=1)
    previous: Hash
    time: Time
    actor: Line
    kind: Kind
    software: Line
    dataset: Line
    unit: Line
    relation: Literal["add or remove one unit"]
    body: dict[str, Any]
    hash: Hash
    public_key: Hash
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @property
    def details(self) -> Body:
        """The body as its own model. Raises ValueError if it is not what an entry of this kind holds."""
        raw = canonical(self.body)
        body = _BODIES[self.kind].model_validate_json(raw, strict=True)
        if canonical(body.model_dump(mode="json")) != raw:
            raise ValueError("the body leaves out or adds something")
        return body

    def to_bytes(self) -> bytes:
        """The entry as the ledger stores it."""
        return canonical(self.model_dump(mode="json"))


def software() -> str:
    """This software and its version, as entries and bundles name it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"distill {version('distill')}"
    except PackageNotFoundError:
        return "distill (not installed)"


def acting_user() -> str:
    """Name of the user who runs this, for the ledger."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "unknown user"


def now() -> str:
    """The time in UTC, ISO, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sign_entry(
    kind: Kind, body: Body, *, after: Entry | None, actor: str, dataset: str, unit: str, key: SigningKey
) -> Entry:
    """The next entry after `after`, hashed and signed. Raises ConfigError if a text is not one printable line."""
    fields: dict[str, Any] = {
        "sequence": 1 if after is None else after.sequence + 1,
        "previous": NO_HASH if after is None else after.hash,
        "time": now(),
        "actor": actor,
        "kind": kind,
        "software": software(),
        "dataset": dataset,
        "unit": unit,
        "relation": RELATION,
        "body": body.model_dump(mode="json"),
        "public_key": key.public_hex,
    }
    digest = _digest(fields)
    try:
        entry = Entry(**fields, hash=digest, signature=key.sign(_ENTRY_DOMAIN + digest.encode()).hex())
    except ValidationError as error:
        raise ConfigError(f"the ledger cannot record this: {first_problem(error)}.") from None
    if len(entry.to_bytes()) > MAX_ENTRY_BYTES:
        raise ConfigError("the ledger cannot record this: the entry is larger than 1 MiB.")
    return entry


def make_body(kind: type[Body], **fields: Any) -> Any:
    """A body of type `kind`; raises ConfigError naming the field that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise ConfigError(f"the ledger cannot record this: {first_problem(error)}.") from None


def read_entry(data: bytes) -> Entry:
    """An entry from its stored bytes, with hash and signature checked against the key it names.

    Raises:
        ValueError: in a few words, what is wrong.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError("it is larger than an entry can be")
    parse_canonical(data)
    try:
        entry = Entry.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise ValueError(f"it is not an entry ({first_problem(error)})") from None
    if entry.to_bytes() != data:
        raise ValueError("it is not in canonical form")
    if _digest(entry.model_dump(mode="json", exclude={"hash", "signature"})) != entry.hash:
        raise ValueError("its contents do not match its hash")
    if not verify_signature(entry.public_key, bytes.fromhex(entry.signature), _ENTRY_DOMAIN + entry.hash.encode()):
        raise ValueError("its signature does not match its hash and key")
    try:
        _ = entry.details
    except ValidationError as error:
        raise ValueError(f"its body is wrong ({first_problem(error)})") from None
    return entry


def sign_head(entry: Entry, key: SigningKey) -> str:
    """The seal on the end of the chain, without which cutting off the last entries would go unseen; hex."""
    return key.sign(_head_message(entry)).hex()


def head_is_sealed(entry: Entry, seal: str) -> bool:
    """Whether `seal` says that `entry` is the last one."""
    try:
        return verify_signature(entry.public_key, bytes.fromhex(seal), _head_message(entry))
    except ValueError:
        return False


def opening(event_format: int = EVENT_FORMAT) -> OpenBody:
    """The body of a first entry."""
    return OpenBody.model_validate({"format": LEDGER_FORMAT, "event_format": event_format})


def check_rounds(events: Sequence[Event], *, first: bool) -> None:
    """Raise ValueError unless `events` all belong to round 0 (`first`) or to later rounds, under names of their own."""
    if any((e.round == 0) != first for e in events):
        raise ValueError("a reservation holds round 0 only" if first else "a plan holds rounds after 0 only")
    names = [e.name for e in events]
    if len(set(names)) < len(names):
        raise ValueError("two events share a name")


def first_problem(error: ValidationError) -> str:
    """The first problem pydantic found: the field and the rule, without the value."""
    detail = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(p) for p in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def require_public_hex(public_hex: str) -> None:
    """Raise ConfigError unless `public_hex` is 64 hex digits."""
    if not is_public_hex(public_hex):
        raise ConfigError("a public key is 64 lowercase hex digits; `distill keys new` prints it.")


def _head_message(entry: Entry) -> bytes:
    return _HEAD_DOMAIN + canonical({"dataset": entry.dataset, "sequence": entry.sequence, "hash": entry.hash})


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(fields)).hexdigest()
