"""One institution as the hub sees it, and what can be asked of its bundle without trusting it."""

__all__: list[str] = []
