"""Time, memory and bytes."""

__all__: list[str] = []
