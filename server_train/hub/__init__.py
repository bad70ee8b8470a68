"""The one job of the hub, from bundles to a published model with its card, its recipe and its prior."""

__all__: list[str] = []
