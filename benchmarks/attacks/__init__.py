"""What survives hostile input, planted bugs and kills."""

__all__: list[str] = []
