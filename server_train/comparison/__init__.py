"""Distillation and the conventional baselines on the same rows, side by side.

A comparison simulates institutions and hub in one process, so it alone under `server_train` may use the institutions'
side as well; nothing else under `server_train` imports it. It is for public data only. Import the submodule you need:
this package imports none of them.
"""

__all__: list[str] = []
