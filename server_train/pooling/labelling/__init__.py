"""One labeller for the pooled rows, from what all institutions released of their classes."""

__all__: list[str] = []
