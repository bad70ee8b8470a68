"""Write the demo's made-up credit tables and their public schema into a folder, one Parquet file a bank.

python examples/make_tables.py FOLDER [SEED]
"""

import sys
from pathlib import Path

import numpy as np

from distill.data.demo import demo_tables


def main(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables = demo_tables(np.random.default_rng(seed))
    (folder / "schema.json").write_text(tables.schema.model_dump_json(indent=1, exclude_none=True), encoding="utf-8")
    for name, frame in {**tables.banks, "held_out": tables.held_out}.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(frame)} made-up rows, {frame['default'].mean():.1%} defaults")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 0)
