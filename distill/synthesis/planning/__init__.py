"""How a budget is shared among the reads of a fit, and the reasons for it in words."""

__all__: list[str] = []
