"""The stages of a fit, one module each; none knows another, `distill.releases.fit` alone knows their order.

Import the stage you need: some pull in torch, so this package imports none of them.
"""

__all__: list[str] = []
