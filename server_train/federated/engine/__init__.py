"""Moves messages between server and clients, in one process, and counts bytes and simulated time."""

__all__: list[str] = []
