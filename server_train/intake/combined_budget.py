"""What a customer's privacy costs across institutions, in two readings.

Disjoint: no person's rows are at two institutions, so each is protected by its own institution's budget and the worst one bounds
them all (parallel composition). Overlapping: a person may be everywhere, so budgets add up.

A bundle that was fitted with a global prior depends on the releases that the prior was made from, other institutions' among
them: these are added in either reading. Adding is an upper bound (basic composition), whatever one release made of another.
"""

from collections.abc import Sequence

from distill.exchange.prior import Cost
from server_train.intake.intake import Received
from server_train.models.cards import Readings


def readings(received: Sequence[Received]) -> Readings:
    """Both readings of the budgets across institutions, with the units and relations they are about."""
    disjoint, overlapping = costs(received)
    privacies = [r.manifest.privacy for r in received]
    return Readings(
        disjoint=disjoint,
        overlapping=overlapping,
        units=sorted({p.unit for p in privacies}),
        relations=sorted({p.relation for p in privacies}),
    )


def costs(received: Sequence[Received]) -> tuple[Cost, Cost]:
    """The disjoint and the overlapping reading."""
    privacies = [r.manifest.privacy for r in received]
    disjoint = Cost(epsilon=max(p.epsilon for p in privacies), delta=max(p.delta for p in privacies))
    overlapping = Cost(epsilon=sum(p.epsilon for p in privacies), delta=sum(p.delta for p in privacies))
    for prior in {r.prior.sha256: r.prior for r in received if r.prior is not None}.values():
        disjoint, overlapping = disjoint.plus(prior.disjoint), overlapping.plus(prior.overlapping)
    return disjoint, overlapping
