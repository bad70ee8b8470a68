"""The hub's side: verify bundles, pool what they hold, train one model. It never meets an institution's rows.

Import the submodule you need: this package imports none of them, so that `import server_train` stays light.
"""

__all__: list[str] = []
