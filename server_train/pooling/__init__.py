"""One training set from many bundles.

institutions    each asked safely              mixture         components that all share
weighing        who counts how much            labelling       one labeller for all
pool            rows in memory                 pool_file       rows on disk, `streaming` writes them
personal        one institution's own model
"""

__all__: list[str] = []
