"""What a comparison found, kept on disk and summed up."""

__all__: list[str] = []
