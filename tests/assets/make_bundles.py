"""Make the hostile bundles that the tests read: `python tests/assets/make_bundles.py` from the repository's root.

Run it again when the format or the ledger's entries change. Keys are new each time, so every file changes; the table in
README.md stays unless an attack is added. What the files are is written in `attacks_*.py`, one short function each.
"""

import sys
from pathlib import Path

from tests.assets import attacks_container, attacks_contents, attacks_manifest
from tests.assets.forge import ATTACKS, House, make_house

HERE = Path(__file__).resolve().parent
BUNDLES = HERE / "bundles"
MODULES = (attacks_container, attacks_contents, attacks_manifest)
START, END = "<!-- made by make_bundles.py -->\n", "<!-- end -->\n"


def table() -> str:
    """What README.md says of each file, in the order of MODULES, whichever was imported first."""
    lines = ["| file | attack | refused with |", "|---|---|---|"]
    attacks = [a for m in MODULES for a in ATTACKS.values() if a.make.__module__ == m.__name__]
    lines += [f"| `{a.name}.distill` | {a.what} | `{a.expected.__name__}` |" for a in attacks]
    return "\n".join(lines) + "\n"


def make(house: House, folder: Path) -> None:
    """Write every attack into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for attack in ATTACKS.values():
        (folder / f"{attack.name}.distill").write_bytes(attack.make(house))


def main() -> int:
    for old in BUNDLES.glob("*.distill"):
        old.unlink()
    make(make_house(), BUNDLES)
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, tail = text.partition(START)[0], text.partition(END)[2]
    readme.write_text(head + START + table() + END + tail, encoding="utf-8")
    print(f"{len(ATTACKS)} bundles, {sum(p.stat().st_size for p in BUNDLES.iterdir()) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
