"""Each way to a model, run on the same rows."""

__all__: list[str] = []
