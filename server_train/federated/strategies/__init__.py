"""The published strategies, one file each; `server_train.federated.strategies.catalogue` finds them by name."""

__all__: list[str] = []
