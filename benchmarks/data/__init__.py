"""Public tables: fetched here, never shipped."""

__all__: list[str] = []
