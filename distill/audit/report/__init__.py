"""The audit report of a privacy officer: its figures, its words, its charts and its page."""

__all__: list[str] = []
