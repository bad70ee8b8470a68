"""What each kind of ledger entry says, and the types that its fields are made of."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from distill.errors import ConfigError
from distill.privacy.events import EVENT_FORMAT, Event

LEDGER_FORMAT = 2
REHEARSAL = "REHEARSAL, NOT PRIVATE"
MAX_STEPS = 1_000_000

Kind = Literal["open", "grant", "enrol", "retire", "rotate", "link", "reserve", "plan", "commit", "abandon", "resolve"]
Role = Literal["officer", "operator"]
Filter = Literal["basic", "renyi"]


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
Salt = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
ReleaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Epsilon = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]  # beyond that nothing is private
Delta = Annotated[float, Field(gt=0, lt=1e-2, allow_inf_nan=False)]
Order = Annotated[float, Field(gt=1, le=10_000, allow_inf_nan=False)]
Total = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Events = Annotated[tuple[Event, ...], Field(min_length=1, max_length=100), AfterValidator(_bounded)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Body):
    """Who may sign what: an officer grants and resolves, an operator spends. One key may hold both roles."""

    role: Role
    name: Line
    public_key: Hash


class OpenBody(_Body):
    """The first entry: the formats, and the first officers and operators, the signer of this entry among them."""

    format: Literal[2]
    event_format: Literal[1]
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=100)]


class GrantBody(_Body):
    """What all releases together may spend from now on; replaces the grant before.

    Attributes:
        epsilon, delta: The budget.
        reason: Who allowed it and why.
        filter: How releases are added up: `basic` adds their epsilons and deltas, `renyi` their Renyi DP at `order`.
        order: Of the Renyi filter; fixed before the first release. None with `basic`.
    """

    epsilon: Epsilon
    delta: Delta
    reason: Line
    filter: Filter = "basic"
    order: Order | None = None


class EnrolBody(_Body):
    """A further officer or operator."""

    member: Member
    reason: Line


class RetireBody(_Body):
    """A key that may no longer sign in this role; what it signed stays."""

    role: Role
    public_key: Hash
    reason: Line


class RotateBody(_Body):
    """The signer's key is replaced by another in all its roles.

    Attributes:
        new_key: From now on.
        cross_signature: By the new key, over the data set and both keys: nobody can name a key that is not theirs.
    """

    new_key: Hash
    cross_signature: Signature
    reason: Line


class LinkBody(_Body):
    """An officer declares that another data set holds some of the same units: for those, budgets add up."""

    dataset: Line
    name: Line
    reason: Line


class _Charge(_Body):
    """What every step of a release states.

    Attributes:
        release: Which release.
        epsilon_release: What all its events so far cost at its delta (one joint privacy loss distribution a round).
        renyi_release: Their Renyi DP at the grant's order; None unless that is how releases are added up.
        epsilon_total, delta_total: Spent by all releases after this entry, as the grant counts it.
    """

    release: ReleaseId
    epsilon_release: Epsilon
    renyi_release: Total | None = None
    epsilon_total: Total
    delta_total: Total


class ReserveBody(_Charge):
    """A release begins: its whole budget is set aside before the first read, round 0 is planned.

    Attributes:
        epsilon, delta: The most that the release may cost.
        renyi: The same as Renyi DP at the grant's order; None unless that is how releases are added up.
    """

    purpose: Line
    rehearsal: bool
    warning: Literal["", "REHEARSAL, NOT PRIVATE"]
    epsilon: Epsilon
    delta: Delta
    renyi: Total | None = None
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


class ResolveBody(_Charge):
    """An officer closes a release that did not finish. Planned: it is spent in full. Never planned: round 0 is."""

    reason: Line


ReleaseStep = PlanBody | CommitBody | AbandonBody | ResolveBody
Body = OpenBody | GrantBody | EnrolBody | RetireBody | RotateBody | LinkBody | ReserveBody | ReleaseStep
B = TypeVar("B", bound=_Body)
BODIES: dict[str, type[Body]] = {
    "open": OpenBody,
    "grant": GrantBody,
    "enrol": EnrolBody,
    "retire": RetireBody,
    "rotate": RotateBody,
    "link": LinkBody,
    "reserve": ReserveBody,
    "plan": PlanBody,
    "commit": CommitBody,
    "abandon": AbandonBody,
    "resolve": ResolveBody,
}


def opening(*members: Member) -> OpenBody:
    """The body of a first entry."""
    return OpenBody.model_validate({"format": LEDGER_FORMAT, "event_format": EVENT_FORMAT, "members": members})


def make_body(kind: type[B], **fields: Any) -> B:
    """A body of type `kind`; raises ConfigError naming the field that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise ConfigError(f"the ledger cannot record this: {first_problem(error)}.") from None


def check_rounds(events: tuple[Event, ...], *, first: bool) -> None:
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
