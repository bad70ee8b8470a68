"""What a model's card says, as classes with fields: institutions, privacy, training, held-out figures.

A card is read from a file and written again byte for byte: a field that the file lacks is not written, an entry that is not
known here is kept, and a whole number stays whole.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from distill.exchange.prior import Cost

Number = int | float  # a whole number in a file stays one


class CardPart(BaseModel):
    """A part of a card that is written as it came."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @model_serializer(mode="wrap")
    def _as_it_came(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialise(self)
        known, there = type(self).model_fields, self.model_fields_set
        return {name: value for name, value in written.items() if name in there or name not in known}

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield name and value of all that the file holds, in order, what is not known here last."""
        return ((name, value) for name, value in self if name in self.model_fields_set)


class InstitutionCard(CardPart):
    """What a card says of one institution. A term that could not be judged, or that an older card lacks, is None.

    Attributes:
        institution: Its name, as stated in the bundle.
        file: Name of the bundle's file.
        bytes: Size of that file.
        sha256: Digest of that file.
        public_key: The key (hex) that signed it.
        dataset: Name that the ledger gives its table.
        ledger_head: Digest of the ledger's last entry.
        created: When the bundle was made.
        software: What made it.
        rehearsal: Whether it is a rehearsal: NOT PRIVATE.
        epsilon: Budget of the release.
        delta: The same.
        unit: Unit of privacy.
        relation: When two tables are neighbours.
        noisy_rows: Released row count (at least 1).
        counted_rows: As many of them as count.
        class_prior: Released class frequencies.
        label_balance: 1 where all classes are equally frequent, 0 where there is one class only.
        head_information: What the generator states about its class head; 0: unusable; None: it stated no finite number.
        diversity: Effective number of groups of customers that its rows are spread over.
        agreement: 1 minus the distance of its statistics from the others'.
        direction: Whether its class head says what the others' say; negative: the opposite.
        effect: What its class head adds to what the others' explain; below 0: it harms.
        mislabelled: Share of its rows that look like another class to the others' heads.
        weight: How far its report is trusted, in [0, 1].
        reasons: Why it counts for less than it could, in plain words.
        row_share: Share of the pooled rows.
        head_share: Share in the combined class head.
        pooled_rows: Rows drawn from its generator.
    """

    institution: str
    file: str
    bytes: int
    sha256: str
    public_key: str
    dataset: str
    ledger_head: str
    created: str
    software: str
    rehearsal: bool
    epsilon: Number
    delta: Number
    unit: str
    relation: str
    noisy_rows: Number
    counted_rows: Number | None = None
    class_prior: list[Number]
    label_balance: Number
    head_information: Number | None
    diversity: Number | None = None
    agreement: Number | None = None
    direction: Number | None = None
    effect: Number | None = None
    mislabelled: Number | None = None
    weight: Number | None = None
    reasons: list[str] = []
    row_share: Number
    head_share: Number
    pooled_rows: int


class Readings(CardPart):
    """What a customer's privacy costs across institutions, in two readings.

    Attributes:
        disjoint: No person's rows are at two institutions.
        overlapping: A person may be at all of them.
        units: Units of privacy of the bundles.
        relations: When two tables are neighbours, for each bundle.
    """

    disjoint: Cost
    overlapping: Cost
    units: list[str] = []
    relations: list[str] = []


class Roc(CardPart):
    """A ROC curve; empty where one side has no rows."""

    false: list[Number]
    true: list[Number]


class Tenths(CardPart):
    """Mean prediction, mean truth, spread of the truth and rows, for each tenth of the rows by prediction."""

    predicted: list[Number]
    observed: list[Number]
    spread: list[Number]
    rows: list[int]


class ScoreCounts(CardPart):
    """Rows by predicted chance: of the class, and of the rest."""

    this: list[int]
    rest: list[int]


class ClassCurves(CardPart):
    """The curves of one class against the rest; `number` is its index (`class` in the file)."""

    number: int = Field(validation_alias="class", serialization_alias="class")
    roc: Roc
    calibration: Tenths
    scores: ScoreCounts


class ErrorCounts(CardPart):
    """How errors of predicted numbers are spread."""

    edges: list[Number]
    rows: list[int]


class NumberCurves(CardPart):
    """The curves of a target that is a number."""

    calibration: Tenths
    errors: ErrorCounts


class HeldOut(CardPart):
    """Figures on the held-out synthetic rows: those of classes or those of a number; the others are None.

    Attributes:
        rows: Rows scored.
        classes: The class names, in order.
        roc_auc: Ranking; macro one-versus-rest for three classes and more.
        average_precision: Ranking, likewise.
        ks: Ranking, likewise.
        brier: Mean squared error of the probabilities.
        accuracy: Share of rows whose most probable class is right.
        log_loss: Mean negative log-probability of the right class.
        per_class_auc: One against the rest, for each class.
        rmse: Root mean squared error, in the target's own unit.
        mae: Mean absolute error, in the target's own unit.
        r2: Share of the target's variance that is predicted.
        curves: What the figures of the report are drawn from.
    """

    rows: int = 0
    classes: list[str] | None = None
    roc_auc: Number | None = None
    average_precision: Number | None = None
    ks: Number | None = None
    brier: Number | None = None
    accuracy: Number | None = None
    log_loss: Number | None = None
    per_class_auc: list[Number | None] | None = None
    rmse: Number | None = None
    mae: Number | None = None
    r2: Number | None = None
    curves: list[ClassCurves] | NumberCurves | None = None

    @property
    def headline(self) -> tuple[str, Number | None]:
        """Name and value of the one figure that there is room for in a line; an empty name: there is none."""
        there = self.model_fields_set
        name = "roc_auc" if "roc_auc" in there else "r2" if "r2" in there else ""
        return name, self.r2 if name == "r2" else self.roc_auc


class TrainingCard(CardPart):
    """How a model was trained. What a card lacks reads as zero, empty or None, and is not written.

    Attributes:
        rows: Rows of the pool.
        held_out_rows: Rows that were held out.
        epochs: Points of the learning curve.
        best_epoch: The one that was kept; 0: none was better than a constant.
        seconds: Wall time.
        inputs: Numbers that are read of a row.
        parameters: Weights of the model.
        settings: Settings that its kind follows.
        class_prior: Global class frequencies.
        class_weights: How much each class counted; None: all alike.
        loss_floor: No model can have a lower loss on the held-out rows.
        curve: Number, training loss and held-out loss of each epoch.
        held_out: How well the held-out rows are predicted.
        score_knots: Quantiles of the scores; a model file may come from anybody, so whoever reads them checks them.
        notes: What a reader should know, in plain words.
    """

    rows: int = 0
    held_out_rows: int = 0
    epochs: int = 0
    best_epoch: int = 0
    seconds: Number = 0
    inputs: int = 0
    parameters: int = 0
    settings: dict[str, JsonValue] = {}
    class_prior: list[Number] = []
    class_weights: list[Number] | None = None
    loss_floor: Number | None = None
    curve: list[tuple[int, Number | None, Number | None]] = []
    held_out: HeldOut = HeldOut()
    score_knots: JsonValue = None
    notes: list[str] = []
