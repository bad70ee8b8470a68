"""What all commands share: options, output, refusals."""

__all__: list[str] = []
