"""What the ledger's chain weighs in a bundle: one digest an entry, which is what lets a hub see a rolled back or copied ledger.

One fit of made-up credit data gives a default and a compact bundle of a ledger with four entries. The same bundles are then
packed again with chains of other lengths (SHA-256 digests of nothing in particular; none packs better than another) and
with none.

    python -m benchmarks.cost.proof_bytes
    python -m benchmarks.cost.proof_bytes --quick
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.processes import distill
from distill.common.canonical_json import canonical
from distill.common.keys import SigningKey, load_signing_key
from distill.common.signed_zip import open_container, pack
from distill.data.demo import demo_tables
from distill.data.tables import write_table
from distill.exchange.bundle import MANIFEST

LENGTHS = (4, 40, 400)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; prints one Markdown table."""
    p = argparse.ArgumentParser(description="Bytes that the chain of the ledger adds to a bundle.")
    p.add_argument("--entries", type=int, nargs="+", default=LENGTHS, help="of the ledger")
    p.add_argument("--rows", type=int, default=8_000, help="of the table")
    p.add_argument("--quick", action="store_true", help="1,000 rows, the compact bundle only")
    asked = p.parse_args(arguments)
    rows, levels = (1_000, ["compact"]) if asked.quick else (asked.rows, ["default", "compact"])
    print("| bundle | ledger entries | bytes | of which the chain |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="distill-proof-") as name:
        bundles, key = made(Path(name), rows, levels)
        for level, bundle in bundles.items():
            for length in asked.entries:
                with_chain, without = (packed(bundle, n, key) for n in (length, 0))
                print(f"| {level} | {length} | {with_chain:,} | {with_chain - without:,} |")
    return 0


def made(folder: Path, rows: int, levels: Sequence[str]) -> tuple[dict[str, bytes], SigningKey]:
    """A fit's bundle at each level, the largest first, and the key that signed it."""
    tables = demo_tables(
        np.random.default_rng(0), rows={"retail_bank": rows, "credit_union": 10, "online_lender": 10}, held_out_rows=10
    )
    write_table(tables.banks["retail_bank"], folder / "train.parquet")
    (folder / "schema.json").write_text(tables.schema.model_dump_json(exclude_none=True), encoding="utf-8")
    project, places = ("--project", folder / "bank"), [folder / f"{level}.distill" for level in levels]
    distill("init", folder / "bank", "--data", folder / "train.parquet", "--schema", folder / "schema.json")
    distill("ledger", "grant", "--epsilon", 2, "--delta", 1e-5, "--reason", "benchmark on made-up data", *project)
    distill("fit", "--compress", levels[0], "--out", places[0], *project)
    for level, place in zip(levels[1:], places[1:], strict=True):
        distill("bundle", "shrink", places[0], "--compress", level, "--out", place, *project)
    bundles = {level: place.read_bytes() for level, place in zip(levels, places, strict=True)}
    return bundles, load_signing_key(folder / "bank" / "keys" / "operator.pem")


def packed(bundle: bytes, entries: int, key: SigningKey) -> int:
    """Bytes of the bundle with a chain of so many entries."""
    container = open_container(bundle)
    files = {name: member.unpack(1 << 30) for name, member in container.members.items()}
    manifest = json.loads(files[MANIFEST])
    manifest["ledger"]["chain"] = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(entries)]
    return len(pack({**files, MANIFEST: canonical(manifest)}, key))


if __name__ == "__main__":
    sys.exit(main())
