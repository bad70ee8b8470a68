"""Noisy counts as they are released, and what makes them consistent. All of it is post-processing."""

__all__: list[str] = []
