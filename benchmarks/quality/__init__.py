"""What samples, models and reports are worth on real tables, ours and others'."""

__all__: list[str] = []
