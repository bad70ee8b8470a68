"""Fixtures of the end-to-end tests; what they are made of is in `tests/end_to_end/small_banks.py`."""

from tests.end_to_end.small_banks import bank, elsewhere, fitted, quick

__all__ = ["bank", "elsewhere", "fitted", "quick"]
