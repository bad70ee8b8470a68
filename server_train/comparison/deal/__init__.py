"""Rows of public tables, dealt to simulated institutions."""

__all__: list[str] = []
