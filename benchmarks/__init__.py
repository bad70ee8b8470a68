"""What the project is measured with: `python -m benchmarks.quality.utility --help`, and so for each.

quality    what samples and models are worth      cost    time, memory, bytes
attacks    what survives hostile input and kills   data    public tables
"""

__all__: list[str] = []
