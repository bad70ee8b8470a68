"""Commands of an institution: set up, plan, fit, look at bundles."""

__all__: list[str] = []
