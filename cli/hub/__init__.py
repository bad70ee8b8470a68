"""Commands of the hub: trust, training, versions of models."""

__all__: list[str] = []
