"""The released model. It draws rows from what was released and reads nothing private: post-processing alone."""

__all__: list[str] = []
