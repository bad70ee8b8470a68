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
from server_train.pooling.labelling.label_draw import draw_labels
from server_train.pooling.labelling.labeller import Labeller, fit_labeller, heads_connect
from server_train.pooling.mixture.joint_mixture import Joint, Site, joint_or_plain
from server_train.pooling.weighing.contribution import Contribution, global_prior
from server_train.pooling.weighing.weights import weigh_all, weight_notes


@dataclass(frozen=True)
class Pool:
    """The pooled training set.

    Attributes:
        schema: Shared by all institutions.
        frame: Rows in public values with drawn labels, in random order.
        soft_labels: Probability of each class for each row, float32, shape (rows, classes). The classes of a target that is
            a number are its common bins; without a target there is one.
        origin: For each row the index of the institution it was drawn from.
        members: The institutions' weights, in the order of `origin`.
        prior: Global class frequencies.
        notes: What a reader should know, in plain words.
        bins: Common bins of a target that is a number; None for any other.
        joint: The joint components; None where they could not be fitted.
    """

    schema: Schema
    frame: pd.DataFrame
    soft_labels: np.ndarray
    origin: np.ndarray
    members: tuple[Contribution, ...]
    prior: np.ndarray
    notes: tuple[str, ...]
    bins: ColumnBins | None = None
    joint: Joint | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def counts(self) -> np.ndarray:
        """Rows drawn from each institution, (institutions,)."""
        return np.bincount(self.origin, minlength=len(self.members))


def default_rows(noisy_rows: Iterable[float]) -> int:
    """Rows to pool when nobody says: four times what the institutions hold, between 20,000 and 200,000."""
    return int(max(20_000, min(200_000, 4 * sum(noisy_rows))))


def draw_pool(
    schema: Schema,
    generators: Sequence[tuple[str, Generator]],
    *,
    rows: int,
    rng: np.random.Generator,
    robust: bool = True,
    faults: Sequence[str | None] | None = None,
    sites: Sequence[Site | None] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Draw `rows` rows from all generators and label them from the class heads.

    A row's label is what all heads say of it together, corrected towards what the head of its own institution says where
    that says more than noise. The first has less noise; the second is right about what sets an institution's customers
    apart (labels of its own rows at its own frequencies: the union of all is the pooled table).

    Args:
        schema: Shared by all institutions.
        generators: Institution name and generator, in a fixed order.
        rows: How many rows; at least one an institution.
        rng: Source of every draw.
        robust: Whether institutions are judged by each other (see `weighing`).
        faults: Why a bundle contradicts itself, one entry a generator (see `coherence`); such a one counts for nothing.
        sites: What the joint components are fitted to, in the same order, None where no pairs travelled; empty: rows are
            drawn from each generator as it came.
        progress: Called with (rows labelled so far, rows) now and then.

    Raises:
        BundleError: a generator fails, or gives rows or probabilities that cannot be right.
        OutweighedError: no institution is left that counts for anything.
    """
    drawer = plan_pool(schema, generators, rows, rng, robust=robust, faults=faults, sites=sites)
    frame, origin = drawer.draw(drawer.counts, rng)
    drawer, logs = drawer.with_labeller(frame, origin, progress)
    soft = drawer.label(frame, rng, logs)
    soft = soft.astype(np.float32)
    return Pool(schema, frame, soft, origin, drawer.members, drawer.prior, drawer.notes, drawer.bins, drawer.joint)


@dataclass(frozen=True)
class Drawer:
    """How the rows of one pool are drawn and labelled, all at once or part by part.

    Attributes:
        schema: Shared by all institutions.
        generators: Institution name and generator, which labels (of a target that is a number: on the common bins).
        drawers: Whom each institution's rows are drawn from, in the same order.
        members: The institutions' weights, in the same order.
        counts: Rows that each of them gives, (institutions,).
        bins: Common bins of a target that is a number.
        prior: Global class frequencies.
        notes: What a reader should know, in plain words.
        joint: The joint components; None where they could not be fitted.
        labeller: Labels any rows; None: they keep the labels that they are drawn with.
    """

    schema: Schema
    generators: Sequence[tuple[str, Generator]]
    drawers: Sequence[Generator]
    members: tuple[Contribution, ...]
    counts: np.ndarray
    bins: ColumnBins | None
    prior: np.ndarray
    notes: tuple[str, ...]
    joint: Joint | None
    labeller: "Labeller | None" = None

    def draw(self, counts: np.ndarray, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
        """`counts` rows of each institution in random order, and the institution of each."""
        drawn = [
            draw_rows(self.schema, name, drawer, int(count), stream)
            for (name, _), drawer, count, stream in zip(
                self.generators, self.drawers, counts, rng.spawn(len(self.members)), strict=True
            )
        ]
        order = rng.permutation(int(counts.sum()))
        frame = stack(self.schema, drawn).iloc[order].reset_index(drop=True)
        return frame, np.repeat(np.arange(len(self.members)), counts)[order]

    def with_labeller(
        self, frame: pd.DataFrame, origin: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> tuple["Drawer", np.ndarray | None]:
        """This drawer with a labeller fitted to drawn rows, and what the heads together say of these rows."""
        if self.schema.task is None:
            return self, None
        if not heads_connect(self.members):
            return replace(self, notes=(*self.notes, _NO_HEADS)), None
        labeller, logs = fit_labeller(self.schema, frame, origin, self.generators, self.members, progress)
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
    schema: Schema,
    generators: Sequence[tuple[str, Generator]],
    rows: int,
    rng: np.random.Generator,
    *,
    robust: bool = True,
    faults: Sequence[str | None] | None = None,
    sites: Sequence[Site | None] = (),
) -> Drawer:
    """How `rows` rows will be drawn. Arguments and errors: see `draw_pool`."""
    judging, fitting = rng.spawn(2)
    members, spoken, bins = weigh_all(schema, generators, judging, robust=robust, faults=faults)
    drawers, joint, notes = _drawers(generators, members, sites, fitting)
    counts = allocate(rows, np.array([m.row_share for m in members]))
    notes = [*weight_notes(members), *notes]
    return Drawer(schema, spoken, drawers, members, counts, bins, global_prior(members), tuple(notes), joint)


def _drawers(
    generators: Sequence[tuple[str, Generator]],
    members: Sequence[Contribution],
    sites: Sequence[Site | None],
    rng: np.random.Generator,
) -> tuple[list[Generator], Joint | None, list[str]]:
    """Whom each institution's rows are drawn from, the joint components, and notes on whom they do not serve."""
    came = [g for _, g in generators]
    if not sites:
        return came, None, []
    rows = np.array([m.row_share for m in members])
    # A capped claim of rows is no claim of so little noise either: an uncapped one would pull on the components without bound.
    trust = np.array([m.weight * (m.counted_rows / m.noisy_rows) ** 2 for m in members])
    names = ", ".join(name for name, _ in generators)
    better, joint = guarded(names, "fitting all statistics", lambda: joint_or_plain(sites, rows, trust, rng))
    plain = [m.institution for m, drawer in zip(members, better, strict=True) if drawer is None and m.weight > 0]
    notes = [_PLAIN.format(name) for name in plain] if len(generators) > 1 else []
    return [drawer or own for drawer, own in zip(better, came, strict=True)], joint, notes


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
