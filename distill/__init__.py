"""The institution's side: one private table in, one signed bundle of private summaries and synthetic rows out.

`distill.releases.fit.fit` runs the whole job and `distill.exchange.bundle` is all that travels. Import the submodule you need: this
package imports none of them, so that `import distill` stays light (no torch, no pandas).
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
