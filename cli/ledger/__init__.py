"""Commands of the ledger and its officers."""

__all__: list[str] = []
