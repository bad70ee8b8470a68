"""How long do reading, verifying and adding to a ledger take as it grows?

    python benchmarks/ledger_size.py [--entries 100 1000 10000] [--plans same different] [--quick]

A release is three entries (reserved, planned, committed). `same`: all releases have one plan, as when a table of one size is
released again and again. `different`: each has a plan of its own (another noisy row count), the worst case for recomputing.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from distill.accounting import epsilon_of
from distill.keys import SigningKey, generate_key
from distill.ledger import Ledger, create_ledger, store
from distill.ledger.bodies import Body, CommitBody, PlanBody, ReserveBody
from distill.ledger.entry import Entry, sign_entry, sign_head
from distill.ledger.releases import Release
from distill.ledger.reservation import charge_body
from distill.plan import make_plan
from distill.schema import Schema

DATASET, DELTA, EPSILON = "0" * 32, 1e-8, 0.05
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


def build(folder: Path, entries: int, *, different: bool) -> Ledger:
    """A ledger of about so many entries."""
    key = generate_key(folder / "key.pem")
    ledger = create_ledger(folder / "ledger.db", dataset=DATASET, unit="row", key=key)
    ledger.grant(epsilon=1000.0, delta=9e-3, reason="size benchmark", actor="benchmark", key=key)
    writer = Writer(ledger, key)
    plan = cost = None
    for number in range((entries - 2) // 3):
        if plan is None or different:
            plan = make_plan(SCHEMA, 20_000 + 7 * number, epsilon=EPSILON, delta=DELTA)
            cost = (epsilon_of(plan.events[:1], DELTA), epsilon_of(plan.events, DELTA))
        assert cost is not None
        release = Release(
            release=f"{number:032x}",
            purpose="monthly",
            actor="benchmark",
            time="",
            rehearsal=False,
            epsilon=EPSILON,
            delta=DELTA,
            renyi=None,
            events=plan.events[:1],
            epsilon_release=cost[0],
            renyi_release=None,
        )
        stated = {"purpose": "monthly", "rehearsal": False, "warning": "", "epsilon": EPSILON, "delta": DELTA}
        writer.add(
            "reserve", charge_body(ReserveBody, writer.state, release, events=release.events, renyi=None, **stated)
        )
        planned = release.planned(plan.events[1:], cost[1], None)
        writer.add("plan", charge_body(PlanBody, writer.state, planned, events=plan.events[1:]))
        done = replace(planned, status="committed", bundle="ab" * 32)
        writer.add("commit", charge_body(CommitBody, writer.state, done, bundle="ab" * 32))
    writer.flush()
    return ledger


def measure(entries: int, plans: str) -> dict[str, object]:
    """Seconds to build, to read (`show`), to verify, and the file's size."""
    with tempfile.TemporaryDirectory() as folder:
        built = time.perf_counter()
        ledger = build(Path(folder), entries, different=plans == "different")
        built = time.perf_counter() - built
        from distill import recompute

        recompute._joint_epsilon.cache_clear()
        seconds = {}
        for name, act in {"read": ledger.summary, "verify": ledger.verify}.items():
            start = time.perf_counter()
            act()
            seconds[name] = round(time.perf_counter() - start, 2)
        size = ledger.path.stat().st_size
    return {"entries": entries, "plans": plans, **seconds, "built": round(built, 1), "megabytes": round(size / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--plans", nargs="+", choices=["same", "different"], default=["same", "different"])
    parser.add_argument("--quick", action="store_true", help="a few entries, to see that it runs")
    args = parser.parse_args()
    for entries in [20] if args.quick else args.entries:
        for plans in args.plans:
            print(json.dumps(measure(entries, plans)), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
