"""The joint representation: soft components on bins that all institutions share."""

__all__: list[str] = []
