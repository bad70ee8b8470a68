"""Fixtures of the end-to-end tests; what they are made of is in `tests/fakes/small_banks.py`."""

from tests.fakes.small_banks import bank, elsewhere, fitted, quick

__all__ = ["bank", "elsewhere", "fitted", "quick"]
