"""Commands about a trained model: evaluate, also privately, and predict."""

__all__: list[str] = []
