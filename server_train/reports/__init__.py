"""Every page of the hub: its figures, its words and its templates."""

__all__: list[str] = []
