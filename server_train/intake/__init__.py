"""What comes in: bundles verified, signers known, what was seen of each ledger, what all of them cost together."""

__all__: list[str] = []
