"""One training set from all institutions: rows from every generator, labels from all class heads together.

Rows are drawn in proportion to what institutions count for (see `weighing`), from components that are fitted to all institutions
at once where pairs travelled (see `representation`), and labelled by one head for all (see `heads`). A
target that is a number is pooled by its common bins (see `number_bins`); without a target the rows are pooled as drawn.
Everything here is post-processing of the bundles: any number of rows, any seed, no budget.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from distill.data.bins import ColumnBins
from distill.data.schema import Schema
from server_train.models.features import class_codes
from server_train.models.number_target import target_codes
from server_train.pooling.institutions.generators import Generator, draw_rows, guarded, stack
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.labelling.label_draw import draw_labels
from server_train.pooling.labelling.labeller import Labeller, fit_labeller, heads_connect
from server_train.pooling.mixture.joint_mixture import Joint, Stake, joint_or_plain
from server_train.pooling.weighing.contribution import Contribution, global_prior
from server_train.pooling.weighing.weights import Contributor, weigh_all, weight_notes


@dataclass(frozen=True)
class Pool:
    """The pooled training set.

    Attributes:
        schema: Shared by all institutions.
        frame: Rows in public values with drawn labels, in random order.
        soft_labels: Probability of each class for each row, float32, shape (rows, classes). The classes of a target that is
            a number are its common bins; without a target there is one.
        origin: For each row the index of the institution it was drawn from.
        contributors: The institutions with what they count for, in the order of `origin`.
        prior: Global class frequencies.
        notes: What a reader should know, in plain words.
        bins: Common bins of a target that is a number; None for any other.
        joint: The joint components; None where they could not be fitted.
    """

    schema: Schema
    frame: pd.DataFrame
    soft_labels: np.ndarray
    origin: np.ndarray
    contributors: tuple[Contributor, ...]
    prior: np.ndarray
    notes: tuple[str, ...]
    bins: ColumnBins | None = None
    joint: Joint | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def members(self) -> tuple[Contribution, ...]:
        """What each institution counts for, in the order of `origin`."""
        return tuple(c.contribution for c in self.contributors)

    @property
    def counts(self) -> np.ndarray:
        """Rows drawn from each institution, (institutions,)."""
        return np.bincount(self.origin, minlength=len(self.contributors))


def default_rows(noisy_rows: Iterable[float]) -> int:
    """Rows to pool when nobody says: four times what the institutions hold, between 20,000 and 200,000."""
    return int(max(20_000, min(200_000, 4 * sum(noisy_rows))))


def draw_pool(
    schema: Schema,
    institutions: Sequence[Institution],
    *,
    rows: int,
    rng: np.random.Generator,
    robust: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Draw `rows` rows from all generators and label them from the class heads.

    A row's label is what all heads say of it together, corrected towards what the head of its own institution says where
    that says more than noise. The first has less noise; the second is right about what sets an institution's customers
    apart (labels of its own rows at its own frequencies: the union of all is the pooled table).

    Args:
        schema: Shared by all institutions.
        institutions: All of them, in a fixed order; one with a fault counts for nothing.
        rows: How many rows; at least one an institution.
        rng: Source of every draw.
        robust: Whether institutions are judged by each other (see `weighing`).
        progress: Called with (rows labelled so far, rows) now and then.

    Raises:
        BundleError: a generator fails, or gives rows or probabilities that cannot be right.
        OutweighedError: no institution is left that counts for anything.
    """
    drawer = plan_pool(schema, institutions, rows, rng, robust=robust)
    frame, origin = drawer.draw(drawer.counts, rng)
    drawer, logs = drawer.with_labeller(frame, origin, progress)
    soft = drawer.label(frame, rng, logs).astype(np.float32)
    contributors = tuple(part.contributor for part in drawer.parts)
    return Pool(schema, frame, soft, origin, contributors, drawer.prior, drawer.notes, drawer.bins, drawer.joint)


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One institution's part of a pool.

    Attributes:
        contributor: The institution, with what it counts for.
        drawer: The generator that its rows are drawn from.
        rows: How many rows it gives.
    """

    contributor: Contributor
    drawer: Generator
    rows: int


@dataclass(frozen=True)
class Drawer:
    """How the rows of one pool are drawn and labelled, all at once or part by part.

    Attributes:
        schema: Shared by all institutions.
        parts: Each institution's part, in a fixed order.
        bins: Common bins of a target that is a number.
        notes: What a reader should know, in plain words.
        joint: The joint components; None where they could not be fitted.
        labeller: Labels any rows; None: they keep the labels that they are drawn with.
    """

    schema: Schema
    parts: tuple[Part, ...]
    bins: ColumnBins | None
    notes: tuple[str, ...]
    joint: Joint | None
    labeller: "Labeller | None" = None

    @property
    def members(self) -> tuple[Contribution, ...]:
        """What each institution counts for."""
        return tuple(part.contributor.contribution for part in self.parts)

    @property
    def counts(self) -> np.ndarray:
        """Rows that each institution gives, (institutions,)."""
        return np.array([part.rows for part in self.parts])

    @property
    def prior(self) -> np.ndarray:
        """Global class frequencies, (classes,)."""
        return global_prior(self.members)

    def draw(self, counts: np.ndarray, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
        """`counts` rows of each institution in random order, and the institution of each."""
        drawn = [
            draw_rows(self.schema, part.contributor.institution.name, part.drawer, int(count), stream)
            for part, count, stream in zip(self.parts, counts, rng.spawn(len(self.parts)), strict=True)
        ]
        order = rng.permutation(int(counts.sum()))
        frame = stack(self.schema, drawn).iloc[order].reset_index(drop=True)
        return frame, np.repeat(np.arange(len(self.parts)), counts)[order]

    def with_labeller(
        self, frame: pd.DataFrame, origin: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> tuple["Drawer", np.ndarray | None]:
        """This drawer with a labeller fitted to drawn rows, and what the heads together say of these rows."""
        if self.schema.task is None:
            return self, None
        if not heads_connect(self.members):
            return replace(self, notes=(*self.notes, _NO_HEADS)), None
        contributors = [part.contributor for part in self.parts]
        labeller, logs = fit_labeller(self.schema, frame, origin, contributors, progress)
        notes = [] if labeller.correct is not None else [_NO_CORRECTION]
        notes += [_FEW.format(m.institution) for m in self.members if m.head_share == 0 and m.weight > 0]
        return replace(self, notes=(*self.notes, *notes), labeller=labeller), logs

    def label(self, frame: pd.DataFrame, rng: np.random.Generator, logs: np.ndarray | None = None) -> np.ndarray:
        """Class probabilities of drawn rows; puts labels drawn from them into `frame`. `logs`: the heads' word, if known."""
        if self.schema.task is None:
            return np.ones((len(frame), 1))
        if self.labeller is None:
            classes = len(self.schema.classes) if self.bins is None else self.bins.n_bins
            return np.asarray(np.eye(classes)[_codes(self.schema, self.bins, frame)])
        soft = self.labeller.probabilities(frame, logs)
        frame[self.schema.target] = draw_labels(self.schema, self.bins, soft, frame, rng)
        return soft


def plan_pool(
    schema: Schema, institutions: Sequence[Institution], rows: int, rng: np.random.Generator, *, robust: bool = True
) -> Drawer:
    """How `rows` rows will be drawn. Arguments and errors: see `draw_pool`."""
    judging, fitting = rng.spawn(2)
    contributors, bins = weigh_all(schema, institutions, judging, robust=robust)
    drawers, joint, plain = _drawers(contributors, fitting)
    members = [c.contribution for c in contributors]
    counts = allocate(rows, np.array([m.row_share for m in members])).tolist()
    parts = [
        Part(contributor=contributor, drawer=drawer, rows=count)
        for contributor, drawer, count in zip(contributors, drawers, counts, strict=True)
    ]
    return Drawer(schema, tuple(parts), bins, (*weight_notes(members), *plain), joint)


def _drawers(
    contributors: Sequence[Contributor], rng: np.random.Generator
) -> tuple[list[Generator], Joint | None, list[str]]:
    """Whom each institution's rows are drawn from, the joint components, and notes on whom they do not serve."""
    names = ", ".join(c.institution.name for c in contributors)
    stakes = [_stake(c) for c in contributors]
    better, joint = guarded(names, "fitting all statistics", lambda: joint_or_plain(stakes, rng))
    found = list(zip(contributors, better, strict=True))
    plain = [c.contribution.institution for c, drawer in found if drawer is None and c.contribution.weight > 0]
    notes = [_PLAIN.format(name) for name in plain] if len(contributors) > 1 else []
    return [drawer or c.institution.generator for c, drawer in found], joint, notes


def _stake(contributor: Contributor) -> Stake | None:
    """An institution's part in the joint components; None: no pairs travelled."""
    member, site = contributor.contribution, contributor.institution.site
    if site is None:
        return None
    # A capped claim of rows is no claim of so little noise either: an uncapped one would pull on the components without bound.
    return Stake(site=site, rows=member.row_share, trust=member.weight * (member.counted_rows / member.noisy_rows) ** 2)


_PLAIN = (
    "The rows of {} are drawn from its bundle as it came: its pair statistics did not travel, or the components fitted to all "
    "institutions lie farther from them."
)
_NO_HEADS = (
    "No combination of class heads tells all classes apart (most institutions hold one class only), so the pooled rows "
    "keep the labels they were drawn with. What tells institutions apart then looks like what tells classes apart: "
    "trust the model only after an evaluation on real rows that hold several classes."
)
_NO_CORRECTION = (
    "Correcting the averaged class heads towards what institutions say of their own rows made them agree less on rows that "
    "were held out, so they are used as they are."
)
_FEW = "{} holds (nearly) one class only: its class head is not used; its rows still shape the features."


def allocate(total: int, shares: np.ndarray) -> np.ndarray:
    """Split `total` rows by `shares` (summing to one) into whole numbers that sum to it exactly: largest remainders."""
    exact = total * shares
    counts = np.floor(exact).astype(int)
    largest = np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return np.asarray(counts)


def _codes(schema: Schema, bins: ColumnBins | None, frame: pd.DataFrame) -> np.ndarray:
    """Class, or common bin, that each row was drawn with."""
    return class_codes(schema, frame) if bins is None else target_codes(bins, frame[schema.target])
