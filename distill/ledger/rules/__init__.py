"""What may follow what: who may sign, how releases add up against a grant, and the next step of each release."""

__all__: list[str] = []
