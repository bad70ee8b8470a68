"""What a ledger says when it refuses: each check before an entry is written, in words for whoever asked."""

from pathlib import Path

from distill.common.keys import SigningKey
from distill.errors import BudgetError, ConfigError, KeyFileError, LedgerError
from distill.ledger.entries.bodies import Filter, Kind
from distill.ledger.rules.filters import Charge, Grant, left_of
from distill.ledger.rules.members import SIGNED_BY
from distill.ledger.rules.release import Release
from distill.ledger.rules.state import State
from distill.privacy.accountant import best_order


def require_file(path: Path) -> None:
    """Raise LedgerError unless there is a file at `path`."""
    if path.is_dir():
        raise LedgerError(f"{path} is a directory; name the ledger's file.")
    if not path.exists():
        raise LedgerError(f"no ledger at {path}. `distill init` makes one.")
    if not path.is_file():
        raise LedgerError(f"{path} is not a file; name the ledger's file.")


def filter_order(state: State, wanted: Filter, order: float | None, epsilon: float, delta: float) -> float | None:
    """The order of the filter that a grant asks for, None for basic composition.

    Raises ConfigError if there is none, or if the way releases are added up would change after the first of them.
    """
    before = state.grant.order
    if wanted == "basic" and order is not None:
        raise ConfigError("an order belongs to a Renyi filter; ask for `--filter renyi`, or leave it out.")
    chosen = None if wanted == "basic" else order or before or best_order(epsilon, delta)
    if state.releases and chosen != before:
        way = "basic composition" if before is None else f"a Renyi filter of order {before:g}"
        raise ConfigError(
            f"this ledger adds releases up by {way}, and has done so since its first release; that cannot change now. "
            "Grant without --filter and --order."
        )
    try:
        _ = Grant(epsilon=epsilon, delta=delta, order=chosen).renyi
    except ValueError as error:
        raise ConfigError(f"no Renyi filter for epsilon {epsilon:g} at delta {delta:g}: {error}") from None
    return chosen


def standing_release(path: Path, state: State, release: str) -> Release:
    """The standing release whose id begins like this. Raises LedgerError."""
    found = [r for r in state.releases.values() if r.release.startswith(release) and r.stands]
    if len(found) == 1 and release:
        return found[0]
    standing = ", ".join(r.release[:8] for r in state.releases.values() if r.stands) or "none"
    problem = "several releases" if found and release else "no standing release"
    raise LedgerError(f"{path}: {problem} with an id that begins with {release!r}; standing: {standing}.")


def require_fits(state: State, epsilon: float, delta: float, renyi: float) -> None:
    """Raise BudgetError, with the mend, unless a further release fits the grant."""
    grant = state.grant
    if not grant.epsilon:
        raise BudgetError(
            "nothing has been granted for this data set yet. The privacy officer grants a budget: "
            f"`distill ledger grant --epsilon {epsilon:g} --delta {delta:g} --reason TEXT`."
        )
    what = state.exceeded_by(Charge(epsilon, delta, renyi))
    if what is None:
        return
    standing = sum(r.stands and not r.rehearsal for r in state.releases.values())
    unfinished = f" ({standing} unfinished release(s) included; see `distill ledger show`)" if standing else ""
    spent = dict(zip(("epsilon", "delta"), state.spent(), strict=True))[what]
    wanted, granted = {"epsilon": (epsilon, grant.epsilon), "delta": (delta, grant.delta)}[what]
    left = left_of(granted, spent)
    if grant.order is not None:
        raise BudgetError(
            f"the release asks for epsilon {epsilon:.6g} at delta {delta:g}; with what is spent{unfinished} that is more than the "
            f"granted epsilon {granted:.6g} by the Renyi filter of order {grant.order:g} ({spent:.6g} is spent). Ask for less, or "
            "have the grant raised with `distill ledger grant`."
        )
    mend = f"Ask for at most {what} {left:.6g}, or" if left > 0 else "Nothing is left:"
    raise BudgetError(
        f"the release asks for {what} {wanted:.6g}, but of the granted {granted:.6g}, {spent:.6g} is spent"
        f"{unfinished} and {left:.6g} is left. {mend} have the grant raised to {spent + wanted:.6g} in all "
        "with `distill ledger grant`."
    )


def require_role(path: Path, state: State, kind: Kind, key: SigningKey) -> None:
    """Raise KeyFileError unless the owner of `key` may add such an entry."""
    role, mine = SIGNED_BY.get(kind), key.public_hex
    held = {m.role for m in state.members.all if m.public_key == mine}
    if role in held or (role is None and held):
        return
    allowed = ", ".join(f"{m.name} ({m.public_key[:16]}...)" for m in state.members.of(role or "operator"))
    successor = next(
        (e.body["new_key"] for e in reversed(state.entries) if e.kind == "rotate" and e.public_key == mine), None
    )
    mend = (
        f"it was replaced by {successor[:16]}...: use that one"
        if successor
        else f"the ledger's {role or 'operator'}s are: {allowed or 'none'}. An officer can enrol a key with `distill ledger enrol`"
    )
    raise KeyFileError(
        f"{kind} entries of the ledger {path} are signed by an {role or 'officer or operator'}, and the given key is "
        f"{mine[:16]}...; {mend}."
    )


def require_dataset(path: Path, state: State, dataset: str) -> None:
    """Raise LedgerError if the ledger is of another data set."""
    if state.first.dataset != dataset:
        raise LedgerError(
            f"the ledger {path} belongs to data set {state.first.dataset}, not {dataset}. "
            "Each data set has a ledger of its own; name the right one (`ledger` in distill.toml)."
        )
