"""Who counts how much: evidence in a bundle, whether it contradicts itself, what the others say of it."""

__all__: list[str] = []
