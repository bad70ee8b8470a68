"""A comparison as page, figures and tables."""

__all__: list[str] = []
