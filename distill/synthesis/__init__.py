"""From noisy answers to a released model: the plan, the statistics, the stages in their order, the generator.

pipeline        the order of the stages
planning        shares of the budget, the plan, why it is so
statistics      noisy counts and what makes them consistent
stages          encode, relate, represent, cluster, refine, discriminate, select
generator       the released model: draws rows, pure post-processing
"""

__all__: list[str] = []
