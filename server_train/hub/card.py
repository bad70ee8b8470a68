"""What a model's card says: who sent what and what it weighs, how the model was trained, what it costs in privacy."""

from datetime import UTC, datetime

import numpy as np
from pydantic import JsonValue

from distill.common.metadata import versions
from server_train.evaluation.held_out_curves import class_curves, number_curves
from server_train.evaluation.metrics import evaluate_numbers, evaluate_scores
from server_train.evaluation.private_scorer import score_knots
from server_train.intake.combined_budget import readings
from server_train.intake.intake import Intake, Received
from server_train.models.cards import HeldOut, InstitutionCard, TrainingCard
from server_train.models.features import class_codes, target_numbers
from server_train.models.model import Model, ModelCard
from server_train.models.number_target import bin_means, stored_bins
from server_train.pooling.pool import Drawer, Pool
from server_train.pooling.pool_file import PoolCard
from server_train.training.fit import Fitted, ModelChoice
from server_train.training.network import TrainingSettings

SHIFTED = (
    "Class weights without calibration: the scores rank rows, but are not probabilities, since they believe in class "
    "frequencies that are multiplied by the weights."
)


def pool_card(intake: Intake, pool: Pool | Drawer) -> PoolCard:
    """What is known of a pool before anything is trained on it."""
    return PoolCard(
        schema=pool.schema,
        target_bins=stored_bins(pool.bins) if pool.bins is not None else None,
        rows=int(pool.counts.sum()),
        class_prior=tuple(pool.prior.tolist()),
        notes=(*intake.notes, *pool.notes),
        institutions=[institution_card(r, pool, i) for i, r in enumerate(intake.received)],
        privacy=readings(intake.received),
        rehearsal=any(r.manifest.rehearsal for r in intake.received),
    )


def model_of(pool: PoolCard, fitted: Fitted, settings: TrainingSettings, choice: ModelChoice) -> Model:
    """The trained model with everything that `model.json` tells, but the digest of the weights."""
    weighted = choice.class_weights is not None
    knots: dict[str, JsonValue] = {}  # only classes have them, and a card holds no entry without a value
    if pool.bins is None:
        knots["score_knots"] = [[*quantiles] for quantiles in score_knots(_held_out_scores(fitted))]
    card = ModelCard(
        kind=choice.kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        schema=pool.schema_,
        schema_digest=pool.schema_.digest(),
        preprocessing=fitted.encoder.curves if fitted.encoder else {},
        target_bins=pool.target_bins,
        hidden=settings.hidden if choice.kind == "mlp" else (),
        calibration=fitted.scorer.calibration,
        training=TrainingCard(
            rows=fitted.rows,
            held_out_rows=len(fitted.held_out_rows),
            epochs=len(fitted.curve),
            best_epoch=fitted.best_epoch,
            seconds=round(fitted.seconds, 2),
            inputs=fitted.scorer.inputs_read,
            parameters=fitted.scorer.parameters,
            settings=choice.as_dict(settings),
            class_prior=list(pool.class_prior),
            class_weights=fitted.weights.tolist() if weighted else None,
            loss_floor=fitted.floor,
            curve=[(e.number, e.training_loss, e.validation_loss) for e in fitted.curve],
            held_out=_held_out(pool, fitted),
            **knots,
            notes=[*pool.notes, *([SHIFTED] if weighted and not choice.calibrate else [])],
        ),
        institutions=pool.institutions,
        privacy=pool.privacy,
        rehearsal=pool.rehearsal,
    )
    return Model(card, fitted.scorer)


def _held_out(pool: PoolCard, fitted: Fitted) -> HeldOut:
    """How well the model ranks the held-out synthetic rows by their drawn labels, or predicts their drawn numbers."""
    frame = fitted.held_out_rows
    scores = _held_out_scores(fitted)
    if pool.bins is not None:
        truth, predicted = target_numbers(pool.schema_, frame), scores @ bin_means(pool.bins)
        return HeldOut(**evaluate_numbers(truth, predicted).as_dict(), curves=number_curves(truth, predicted))
    codes = class_codes(pool.schema_, frame)
    found = evaluate_scores(codes, scores, pool.schema_.classes)
    return HeldOut(**found.as_dict(), curves=class_curves(codes, scores))


def _held_out_scores(fitted: Fitted) -> np.ndarray:
    """What the model says of the held-out synthetic rows, (rows, outputs)."""
    return fitted.scorer.probabilities(fitted.held_out_rows)


def institution_card(received: Received, pool: Pool | Drawer, position: int) -> InstitutionCard:
    """One institution in card and report: who, what it cost, what it weighs, what it sent."""
    manifest, member = received.manifest, pool.members[position]
    return InstitutionCard(
        institution=received.name,
        file=received.bundle.path.name,
        bytes=received.bundle.size,
        sha256=received.bundle.digest,
        public_key=manifest.public_key,
        dataset=manifest.dataset,
        ledger_head=manifest.ledger.head,
        created=str(manifest.created),
        software=str(manifest.software),
        rehearsal=manifest.rehearsal,
        epsilon=manifest.privacy.epsilon,
        delta=manifest.privacy.delta,
        unit=manifest.privacy.unit,
        relation=manifest.privacy.relation,
        noisy_rows=member.noisy_rows,
        counted_rows=member.counted_rows,
        class_prior=list(member.class_prior),
        label_balance=member.label_balance,
        head_information=member.head_information,
        diversity=member.diversity,
        agreement=member.agreement,
        direction=member.direction,
        effect=member.effect,
        mislabelled=member.mislabelled,
        weight=member.weight,
        reasons=list(member.reasons),
        row_share=member.row_share,
        head_share=member.head_share,
        pooled_rows=int(pool.counts[position]),
    )
