"""How long do reading, verifying and adding to a ledger take as it grows?

    python -m benchmarks.cost.ledger_size [--entries 100 1000 10000] [--plans same noisy] [--quick]

A release is three entries (reserved, planned, committed) of a table with 20,000 rows and 13 columns. `same`: all have one plan.
`noisy`: each is planned for its own noisy row count, as real ones are. The smaller the epsilon of a release (`--epsilon`), the
wider the counts are spread, and the more plans there are to recompute.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from distill.common.keys import SigningKey, generate_key
from distill.data.schema import Schema
from distill.ledger import Ledger, create_ledger
from distill.ledger.entries import store
from distill.ledger.entries.bodies import Body, CommitBody, PlanBody, ReserveBody
from distill.ledger.entries.entry import Entry, sign_entry, sign_head
from distill.ledger.reservation import charge_body
from distill.ledger.rules.release import Release
from distill.privacy import accountant
from distill.privacy.calibration import three_digits
from distill.privacy.events import epsilon_of
from distill.synthesis.planning.plan import MIN_ROWS, Plan, make_plan

DATASET, DELTA, ROWS = "0" * 32, 1e-8, 20_000
SCHEMA = Schema.model_validate(
    {
        "name": "loans",
        "target": "default",
        "columns": [
            *({"name": f"x{i}", "kind": "continuous", "min": 0, "max": 1} for i in range(12)),
            {"name": "default", "kind": "categorical", "categories": [0, 1]},
        ],
    }
)


class Writer:
    """Adds signed entries that keep to every rule, in one transaction, without replaying all before each."""

    def __init__(self, ledger: Ledger, key: SigningKey) -> None:
        self.ledger, self.key, self.state = ledger, key, ledger.state()
        self.new: list[Entry] = []

    def add(self, kind: str, body: Body) -> None:
        """One entry more."""
        entry = sign_entry(
            kind, body, after=self.state.last, actor="benchmark", dataset=DATASET, unit="row", key=self.key
        )
        self.state.apply(entry)
        self.new.append(entry)

    def flush(self) -> None:
        """Put all of them into the file."""
        with store.writing(self.ledger.path) as connection:
            for entry in self.new:
                store.append(connection, entry, sign_head(entry, self.key))


@functools.cache
def planned(size: int, epsilon: float) -> tuple[Plan, float, float]:
    """A plan, and what its row count and all of it cost."""
    plan = make_plan(SCHEMA, size, epsilon=epsilon, delta=DELTA)
    return plan, epsilon_of(plan.events[:1], DELTA), epsilon_of(plan.events, DELTA)


def build(folder: Path, entries: int, *, noisy: bool, epsilon: float) -> Ledger:
    """A ledger of about so many entries."""
    rng = np.random.default_rng(0)
    key = generate_key(folder / "key.pem")
    ledger = create_ledger(folder / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=1000.0, delta=9e-3, reason="size benchmark", actor="benchmark", key=key)
    writer = Writer(ledger, key)
    for number in range((entries - 2) // 3):
        size = ROWS + round(rng.laplace(0, 100 / epsilon)) if noisy else ROWS
        plan, begun, whole = planned(three_digits(max(size, MIN_ROWS)), epsilon)
        release = Release(
            release=f"{number:032x}",
            purpose="monthly",
            actor="benchmark",
            time="",
            rehearsal=False,
            epsilon=epsilon,
            delta=DELTA,
            renyi=None,
            events=plan.events[:1],
            epsilon_release=begun,
            renyi_release=None,
        )
        stated = {"purpose": "monthly", "rehearsal": False, "warning": "", "epsilon": epsilon, "delta": DELTA}
        writer.add(
            "reserve", charge_body(ReserveBody, writer.state, release, events=release.events, renyi=None, **stated)
        )
        further = release.planned(plan.events[1:], whole, None)
        writer.add("plan", charge_body(PlanBody, writer.state, further, events=plan.events[1:]))
        done = further.committed("ab" * 32)
        writer.add("commit", charge_body(CommitBody, writer.state, done, bundle="ab" * 32))
    writer.flush()
    return ledger


def measure(entries: int, plans: str, epsilon: float) -> dict[str, object]:
    """Seconds to build, to read (`show`), to verify, and the file's size."""
    with tempfile.TemporaryDirectory() as folder:
        built = time.perf_counter()
        ledger = build(Path(folder), entries, noisy=plans == "noisy", epsilon=epsilon)
        built = time.perf_counter() - built
        for cache in (accountant._joint_epsilon, accountant._renyi, accountant._pld):
            cache.cache_clear()
        seconds = {}
        for name, act in {"read": ledger.summary, "verify": ledger.verify}.items():
            start = time.perf_counter()
            act()
            seconds[name] = round(time.perf_counter() - start, 2)
        size = ledger.path.stat().st_size
        distinct = len({r.epsilon_release for r in ledger.summary().releases})
    return {
        "entries": entries,
        "plans": plans,
        "distinct": distinct,
        **seconds,
        "built": round(built, 1),
        "megabytes": round(size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--plans", nargs="+", choices=["same", "noisy"], default=["same", "noisy"])
    parser.add_argument("--epsilon", type=float, default=0.25, help="of each release")
    parser.add_argument("--quick", action="store_true", help="a few entries, to see that it runs")
    args = parser.parse_args()
    for entries in [20] if args.quick else args.entries:
        for plans in args.plans:
            print(json.dumps(measure(entries, plans, args.epsilon)), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
