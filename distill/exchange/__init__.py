"""All that crosses the wall: bundles, global priors and evaluation documents, each checked in full before it is used.

bundle          the signed bundle              manifest        what it says of itself
samples         synthetic rows in it           parquet_guard   what a hostile Parquet file may not do
generator_codec a generator as tensors         levels          how much of it travels
prior           the hub's signed prior         evaluation_document  a private evaluation
noisy_scores    figures from noisy counts
"""

__all__: list[str] = []
