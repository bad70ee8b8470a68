"""Does a release cost what was granted? Joint epsilon over grant, PLD against RDP, and processor seconds, over random plans.

    python -m benchmarks.quality.calibration --out calibration.csv
    python -m benchmarks.quality.calibration --quick

Each plan is drawn from one seed: 2 to 100 columns of any kind, 200 to 10,000,000 rows, epsilon 0.05 to 20, delta 1e-9 to 1e-3,
with classes, a number or nothing to predict, now and then several rows a unit. No table is made: a plan follows from the
schema, the grant and the noisy row count. Ends with 1 if a plan costs more than its grant or the accountants contradict each other.

A plan may use much less than its grant only where all noise is at its floor (2 rows on a count, 0.3 times the clip norm in
training): few columns, 10,000,000 rows, epsilon 20 and a delta of 1e-3, say.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from distill.data.schema import Schema
from distill.privacy import accountant
from distill.synthesis.planning.plan import Plan, make_plan

LEAST_USED = 0.98  # of the grant, that a plan should use at least


def random_schema(rng: random.Random) -> Schema:
    """2 to 100 columns, log-uniform; the first one may be the target."""
    target = rng.choice(["classes", "number", "none"])
    columns: list[dict[str, Any]] = []
    for i in range(round(2 * 50 ** rng.random())):
        kind = {"classes": "categorical", "number": "continuous"}.get(target) if i == 0 else None
        kind = kind or rng.choice(["continuous", "integer", "categorical"])
        column: dict[str, Any] = {"name": f"c{i}", "kind": kind, "nullable": i > 0 and rng.random() < 0.5}
        if kind == "categorical":
            column["categories"] = list(range(rng.randint(2, 5 if i == 0 else 40)))
        else:
            column |= {"min": rng.choice([0, -1000]), "max": 10 ** rng.randint(0, 7)}
        columns.append(column)
    named = None if target == "none" else "c0"
    return Schema.model_validate({"name": "random", "columns": columns, "target": named, "unit": "customer"})


def random_plan(rng: random.Random) -> Plan:
    """A plan for a random table and a random grant."""
    schema = random_schema(rng)
    return make_plan(
        schema,
        int(200 * 5e4 ** rng.random()),
        epsilon=0.05 * 400 ** rng.random(),
        delta=10 ** rng.uniform(-9, -3),
        rows_per_unit=rng.choice([1, 1, rng.randint(2, 50)]),
    )


def measure(number: int, seed: int) -> dict[str, Any]:
    """One random plan: what it costs by both accountants, and how long the answers took."""
    rng = random.Random(f"{seed} {number}")
    start = time.process_time()
    plan = random_plan(rng)
    planned = time.process_time()
    events = [e.model_dump(mode="json") for e in plan.events]
    accountant._joint_epsilon.cache_clear()  # else the plan's own calibration has the answer
    pld = accountant.epsilon(events, plan.delta)
    composed = time.process_time()
    rdp = accountant.epsilon(events, plan.delta, "rdp")
    return {
        "plan": number,
        "features": plan.event("encode.classes").blocks,
        "rows": plan.noisy_size,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "rows_per_unit": plan.rows_per_unit,
        "ratio": pld / plan.epsilon,
        "rdp_over_pld": rdp / pld,
        "contradict": accountant.contradict(events, pld, rdp),
        "plan_seconds": planned - start,
        "pld_seconds": composed - planned,
        "rdp_seconds": time.process_time() - composed,
    }


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Least, mean and most of each figure, and the plans that use least of their grants."""
    lines = ["| figure | least | mean | most |", "|---|---|---|---|"]
    for name in ("ratio", "rdp_over_pld", "plan_seconds", "pld_seconds", "rdp_seconds"):
        values = [r[name] for r in results]
        lines.append(f"| {name} | {min(values):.5g} | {sum(values) / len(values):.5g} | {max(values):.5g} |")
    lines.append(
        f"\n{sum(r['ratio'] <= LEAST_USED for r in results)} of {len(results)} plans use {LEAST_USED} or less:"
    )
    lines += [
        f"- plan {r['plan']}: {r['ratio']:.4f} of epsilon {r['epsilon']:.3g} at delta {r['delta']:.1e}, {r['features']} features, "
        f"{r['rows']} rows, {r['rows_per_unit']} a unit"
        for r in sorted(results, key=lambda r: float(r["ratio"]))[:5]
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--plans", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quick", action="store_true", help="4 plans")
    p.add_argument("--out", type=Path, metavar="FILE.csv", help="one line a plan, written after every plan")
    options = p.parse_args(arguments)
    results: list[dict[str, Any]] = []
    for number in range(4 if options.quick else options.plans):
        results.append(measure(number, options.seed))
        if options.out:
            pd.DataFrame(results).to_csv(options.out, index=False)
    print(summary(results))
    return int(any(r["ratio"] > 1 or r["contradict"] for r in results))


if __name__ == "__main__":
    sys.exit(main())
