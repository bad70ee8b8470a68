"""Conventional federated learning, to compare with: many rounds of weights instead of one bundle.

A `Strategy` says what travels and how replies are combined; a `Client` trains on rows that stay with it; an engine moves
messages and counts every byte. Import the submodule you need: this package imports none of them.
"""

__all__: list[str] = []
