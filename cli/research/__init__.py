"""Commands for research: comparisons, federated runs, the demonstration."""

__all__: list[str] = []
