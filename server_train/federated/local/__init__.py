"""How a client trains on the rows it holds."""

__all__: list[str] = []
