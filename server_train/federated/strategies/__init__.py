"""The published strategies, one file each; `server_train.federated.registry` finds them by name."""

__all__: list[str] = []
