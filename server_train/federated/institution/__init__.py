"""The one part of a federation that runs at an institution: it holds rows and answers rounds."""

__all__: list[str] = []
