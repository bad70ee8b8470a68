"""The same federation over Flower, on real sockets."""

__all__: list[str] = []
