# One environment in .venv; every target that needs it makes it first. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKED := distill server_train cli tests benchmarks examples

.PHONY: help demo test nightly lint format bench clean
.DEFAULT_GOAL := help

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: $(READY) ## three banks distil their tables, the hub trains one model: the whole job on made-up data
	rm -rf demo-out
	$(BIN)/distill demo --out demo-out

# A worker a core, each with one thread; a file's tests stay on one worker, for they share what is slow to make.
test: $(READY) ## unit, property, statistical and end-to-end tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

nightly: $(READY) ## the tests that take too long for every day: quick sizes of the longer benchmarks
	$(BIN)/python -m pytest -m nightly

lint: $(READY) ## style and types; changes nothing
	$(BIN)/python -m ruff check $(CHECKED)
	$(BIN)/python -m ruff format --check $(CHECKED)
	$(BIN)/python -m mypy

format: $(READY) ## puts the code into the house style
	$(BIN)/python -m ruff check --fix $(CHECKED)
	$(BIN)/python -m ruff format $(CHECKED)

bench: $(READY) ## what the samples are worth on real tables; see benchmarks/README.md
	$(BIN)/python -m benchmarks.quality.utility $(BENCH)

clean: ## removes what the other targets made, the environment too
	rm -rf $(VENV) build dist *.egg-info demo-out benchmarks/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and exactly: a build that is already at hand for this version is taken as it is.
# The mark is written last, so an interrupted set-up starts over.
$(READY): pyproject.toml constraints.txt
	@python=$$(for p in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; \
	  done); \
	test -n "$$python" || { echo "distill needs Python 3.11 or newer with venv; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,flower]'
	@touch $(READY)
