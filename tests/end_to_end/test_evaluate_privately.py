"""`distill evaluate --dp-epsilon`: charged before it reads, nothing but the noisy table leaves, and a crash stays charged."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from distill.common import files as durable
from distill.data.schema import Schema
from distill.exchange.evaluation_document import read_document
from distill.privacy.accountant import check_export
from distill.privacy.noise import NoiseSource
from distill.privacy.private_table import PrivateTable
from distill.releases import evaluation, lifecycle
from server_train.evaluation.private_scorer import score_knots
from server_train.models.cards import TrainingCard
from tests.end_to_end.small_banks import DELTA, SCHEMA, Bank, distill, full_disk, loans, make_bank, refusal, result_of

ROWS = 1237  # distinctive: not a step, a size or a default of anything
OUT = "evaluation.dp.json"


def chances(frame):
    """The truth behind `loans`, of a default."""
    income = np.nan_to_num(frame["income"].to_numpy(float), nan=300)
    odds = np.exp(1.5 - income / 150 + (frame["region"].astype(object) == "south").to_numpy())
    return odds / (1 + odds)


def fake_model(schema=SCHEMA):
    """What `load_model` would give for a model that knows the truth."""

    def predict(frame):
        return np.stack([1 - chances(frame), chances(frame)], axis=1)

    card = SimpleNamespace(
        rehearsal=False,
        weights_sha256="a" * 64,
        created="2026-01-01",
        training=TrainingCard(score_knots=score_knots(predict(loans(4000, 9)))),
    )
    return SimpleNamespace(schema=Schema.model_validate(schema), card=card, predict=predict)


@pytest.fixture(autouse=True)
def fakes_are_row_local(monkeypatch):
    monkeypatch.setattr(
        "server_train.evaluation.private_scorer.row_probabilities", lambda model, frame: model.predict(frame)
    )


@pytest.fixture
def model(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("server_train.models.model.load_model", lambda path: fake_model())
    return "MODEL"


@pytest.fixture
def house(tmp_path) -> Bank:
    return make_bank(tmp_path / "bank", loans(ROWS, seed=11))


def evaluate(bank: Bank, *words: object, epsilon: float = 1.0, json_too: bool = False):
    more = ["--json"] if json_too else []
    return distill(
        "evaluate", "MODEL", bank.project.data, "--project", bank.folder, "--dp-epsilon", epsilon, *words, *more
    )


def test_a_release_is_charged_committed_signed_and_recomputed(model, house, tmp_path):
    ran = evaluate(house, "-o", tmp_path / "page.html", "--cost-false-positive", 1, "--cost-false-negative", 3)
    assert ran.exit_code == 0, ran.stderr
    assert "It may be published" in ran.stdout
    assert [e.kind for e in house.ledger.entries()] == ["open", "grant", "reserve", "plan", "commit"]
    release = house.books.releases[0]
    assert (release.epsilon, release.status) == (1.0, "committed")
    assert [(e.name, e.mechanism) for e in release.events] == [("size", "laplace"), ("evaluate.scores", "laplace")]
    assert house.books.spent_epsilon == 1.0
    assert house.books.spent_delta < 1e-14
    document, digest = read_document(house.folder / OUT, public_hex=house.key.public_hex)
    assert release.bundle == digest
    assert document["release"] == release.release
    assert house.ledger.verify(house.key.public_hex).releases[0].epsilon_pld <= 1.0
    result_of("ledger", "export", "-o", tmp_path / "export.json", "--project", house.folder)
    lines = list(check_export(json.loads((tmp_path / "export.json").read_text())["entries"]))
    assert [agrees for _, agrees in lines] == [True]
    found = result_of("ledger", "verify", "--project", house.folder, "--against", house.folder / OUT)
    assert found["bundles"][0]["release"] == release.release
    shown = distill("ledger", "report", "-o", tmp_path / "audit.html", "--project", house.folder)
    assert shown.exit_code == 0, shown.stderr
    audit = (tmp_path / "audit.html").read_text()
    assert "rows by class and score bin of a public model" in audit
    assert "counts in one table with Laplace noise" in audit
    page = (tmp_path / "page.html").read_text()
    assert "differentially private" in page
    assert "<script" not in page


def test_the_figures_are_near_the_exact_ones(model, house):
    """A rehearsal, so that it is the same in each run."""
    said = json.loads(evaluate(house, "--rehearsal", 3, json_too=True).stdout)
    from server_train.evaluation.metrics import evaluate_scores

    frame = loans(ROWS, seed=11)
    exact = evaluate_scores(frame["default"].to_numpy(), fake_model().predict(frame), [0, 1])
    assert said["figures"]["roc_auc"]["value"] == pytest.approx(exact.roc_auc, abs=0.02)
    assert said["figures"]["accuracy"]["value"] == pytest.approx(exact.accuracy, abs=0.02)
    assert said["figures"]["brier"]["value"] == pytest.approx(exact.brier, abs=0.01)
    assert said["rehearsal"] is True
    assert "NOT PRIVATE" in said["word"]
    assert house.books.spent_epsilon == 0


def numbers_in(value):
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers_in(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers_in(v)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_no_exact_figure_leaves(model, house, tmp_path):
    """A rehearsal, so that no figure is the exact one by bad luck; what is printed, written and booked is searched."""
    from server_train.evaluation.assessment import Question, assess

    ran = evaluate(house, "--rehearsal", 5, "-o", tmp_path / "page.html", json_too=True)
    exact = assess(fake_model(), house.project.data, Question())
    figures = exact.figures
    secret = [
        ROWS,
        figures.roc_auc,
        figures.average_precision,
        figures.ks,
        figures.brier,
        figures.accuracy,
        figures.log_loss,
    ]
    secret += [n for line in exact.confusion for n in line] + [float(exact.truth.mean()), float(exact.truth.sum())]
    for text in (ran.stdout, (house.folder / OUT).read_text(), json.dumps([e.body for e in house.ledger.entries()])):
        found = numbers_in(json.loads(text))
        assert found
        assert not [s for s in secret if np.isclose(found, s, rtol=1e-9, atol=0).any()]
    assert str(ROWS) not in (tmp_path / "page.html").read_text().replace(",", "").split("<section>", 1)[0]


def test_the_exact_evaluation_is_not_even_computed(model, house, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("exact figures were computed")

    monkeypatch.setattr("server_train.evaluation.assessment.assess", forbidden)
    monkeypatch.setattr("server_train.evaluation.metrics.evaluate_scores", forbidden)
    assert evaluate(house).exit_code == 0


def test_the_books_are_charged_before_the_door_opens(model, house, monkeypatch):
    seen = []
    real = {name: getattr(PrivateTable, name) for name in ("noisy_size", "laplace_counts")}

    def noted(name):
        def read(self, *arguments):
            seen.append((name, house.books.releases[0].status, house.books.spent_epsilon))
            return real[name](self, *arguments)

        return read

    for name in real:
        monkeypatch.setattr(PrivateTable, name, noted(name))
    assert evaluate(house).exit_code == 0
    assert seen == [("noisy_size", "reserved", 1.0), ("laplace_counts", "planned", 1.0)]


def test_over_the_grant_nothing_is_scored_or_charged(model, house, monkeypatch):
    monkeypatch.setattr(lifecycle, "PrivateTable", lambda *_, **__: pytest.fail("rows were asked"))
    said = refusal(evaluate(house, epsilon=2.5))
    assert "grant" in said
    assert house.books.releases == ()
    assert not (house.folder / OUT).exists()


def test_two_releases_share_one_grant(model, house):
    assert evaluate(house, epsilon=1.2).exit_code == 0
    assert "exists already" in refusal(evaluate(house, epsilon=0.5))
    assert evaluate(house, "--dp-out", house.folder / "second.json", epsilon=0.8).exit_code == 0
    refusal(evaluate(house, "--dp-out", house.folder / "third.json", epsilon=0.1))
    assert house.books.spent_epsilon == pytest.approx(2.0)


def test_it_fits_beside_a_release_that_took_all_of_delta(model, house):
    """Laplace noise needs no delta; the least that the books can hold is below their rounding."""
    first = evaluate(house, "--dp-delta", DELTA, "--dp-out", house.folder / "first.json", epsilon=0.5)
    assert first.exit_code == 0, first.stderr
    assert evaluate(house, epsilon=0.5).exit_code == 0


def test_a_crash_in_the_read_stays_charged_and_leaves_no_file(model, house, monkeypatch):
    def crash(*_):
        raise MemoryError("4711 rows")

    files = house.files()
    monkeypatch.setattr(evaluation, "count_blocks", crash)
    monkeypatch.delenv("DISTILL_DEBUG", raising=False)
    ran = evaluate(house)
    assert ran.exit_code == 1
    assert "4711" not in ran.output + ran.stderr
    assert house.files() == files
    assert [r.status for r in house.books.standing] == ["planned"]
    assert house.books.spent_epsilon == 1.0


def test_a_full_disk_stays_charged_and_leaves_no_file(model, house, monkeypatch):
    files = house.files()
    real = evaluation.write_document

    def full(place, document):
        monkeypatch.setattr(durable.os, "fsync", full_disk)
        return real(place, document)

    monkeypatch.setattr(evaluation, "write_document", full)
    ran = evaluate(house)
    monkeypatch.undo()
    assert ran.exit_code == 2
    assert "No space left" in ran.stderr
    assert house.files() == files
    assert [r.status for r in house.books.standing] == ["planned"]


def test_what_a_killed_run_committed_is_put_in_place_and_costs_nothing_more(model, house):
    assert evaluate(house).exit_code == 0
    out = house.folder / OUT
    data = out.read_bytes()
    out.rename(durable.temporary_beside(out))
    assert "is in place now" in refusal(evaluate(house))
    assert out.read_bytes() == data
    assert house.books.spent_epsilon == 1.0


def test_a_value_outside_the_schema_is_refused_without_quoting_it_and_without_a_charge(model, house):
    rows = loans(ROWS, seed=11).assign(default=lambda f: f["default"].astype(str))
    rows.loc[5, "default"] = "Xanthippe"
    house.write_rows(rows)
    said = refusal(evaluate(house))
    assert "Xanthippe" not in said
    assert house.books.releases == ()


def test_a_changed_file_is_refused(model, house):
    assert evaluate(house).exit_code == 0
    path = house.folder / OUT
    document = json.loads(path.read_text())
    document["figures"]["roc_auc"]["value"] = 0.99
    path.write_text(json.dumps(document))
    said = refusal(distill("ledger", "verify", "--project", house.folder, "--against", path))
    assert "signature does not match" in said
    path.write_text("{}")
    assert "not a released evaluation" in refusal(
        distill("ledger", "verify", "--project", house.folder, "--against", path)
    )


def test_rows_of_one_customer_count_once(monkeypatch, tmp_path):
    """Twenty customers of forty rows: the door holds a row each, and the noise is for one customer."""
    seen = []
    schema = {**SCHEMA, "unit": "customer"}
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("server_train.models.model.load_model", lambda path: fake_model(schema))
    bank = make_bank(tmp_path / "bank", loans(800).assign(customer=[f"c{i // 40}" for i in range(800)]), schema=schema)
    real = NoiseSource.laplace_counts

    def noted(self, counts, *, scale):
        seen.append((int(counts.sum()), scale))
        return real(self, counts, scale=scale)

    monkeypatch.setattr(NoiseSource, "laplace_counts", noted)
    assert evaluate(bank, epsilon=0.5).exit_code == 0
    assert evaluate(bank, "--max-rows-per-unit", 3, "--overwrite", epsilon=0.5).exit_code == 0
    assert [n for n, _ in seen] == [20, 20, 60, 60]
    assert seen[3][1] == pytest.approx(3 * seen[1][1], rel=1e-3)


def test_a_ledger_of_another_unit_is_refused(model, tmp_path):
    bank = make_bank(tmp_path / "bank", loans(300).assign(customer="c"), schema={**SCHEMA, "unit": "customer"})
    assert "counts privacy by 'row'" in refusal(evaluate(bank))
    assert bank.books.releases == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dp-epsilon", 1, "--by", "region"), "--by cannot be combined"),
        (("--dp-epsilon", 1, "--threshold", 2), "within 0 and 1"),
        (("--dp-epsilon", 0.001), "at least 0.01"),
        (("--rehearsal", 3), "add --dp-epsilon"),
        (("--cost-false-positive", 3), "give both"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_for_free(model, house, words, message):
    assert message in refusal(distill("evaluate", "MODEL", house.project.data, "--project", house.folder, *words))
    assert house.books.releases == ()


def test_a_model_of_a_rehearsal_is_evaluated_in_rehearsals_only(model, house, monkeypatch):
    rehearsed = fake_model()
    rehearsed.card.rehearsal = True
    monkeypatch.setattr("server_train.models.model.load_model", lambda path: rehearsed)
    assert "made from a rehearsal" in refusal(evaluate(house))
    assert house.books.releases == ()
    assert evaluate(house, "--rehearsal", 1).exit_code == 0


def test_a_renyi_filter_gets_the_noise_that_fits_it(model, tmp_path):
    bank = make_bank(tmp_path / "bank", loans(ROWS, seed=11), grant=None)
    ran = distill(
        "ledger",
        "grant",
        "--epsilon",
        2,
        "--delta",
        1e-5,
        "--reason",
        "r",
        "--filter",
        "renyi",
        "--project",
        bank.folder,
    )
    assert ran.exit_code == 0, ran.stderr
    ran = evaluate(bank, epsilon=0.5)
    assert ran.exit_code == 0, ran.stderr
    assert bank.books.releases[0].events[1].mechanism == "gaussian"
    bank.ledger.verify()
