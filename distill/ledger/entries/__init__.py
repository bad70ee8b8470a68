"""What is written: the bodies of entries, their hashes and signatures, and the file that holds them."""

__all__: list[str] = []
