"""What travels in a federation: tensors, compressed or not, sketches of columns, kinds of messages."""

__all__: list[str] = []
