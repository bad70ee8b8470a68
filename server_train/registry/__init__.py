"""Versions of models: registered, promoted, rolled back, compared; a hash-chained history."""

__all__: list[str] = []
