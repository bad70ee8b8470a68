"""The accountant by its short name: `python -m distill.recompute FILE` recomputes every epsilon of an exported ledger."""

import sys

from distill.privacy.accountant import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
