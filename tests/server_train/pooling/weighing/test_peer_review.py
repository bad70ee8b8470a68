"""Who lies among institutions: each way of poisoning a report loses its weight, and honest ones that differ keep theirs."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import OutweighedError
from distill.synthesis.statistics.class_odds import log_normalise
from server_train.pooling.institutions.institution import Institution
from server_train.pooling.pool import draw_pool
from server_train.pooling.weighing import weights
from server_train.pooling.weighing.contribution import MOST_TIMES, allowances, counted_rows
from server_train.pooling.weighing.peer_review import upper_median
from server_train.pooling.weighing.weights import weigh
from tests.fakes.hubs import BINARY, TERNARY, TableGenerator, skewed, table

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch):
    """Enough to tell liars from others here."""
    monkeypatch.setattr(weights, "REVIEW_ROWS", 1000)


@dataclass
class Honest(TableGenerator):
    """Its head is the truth but for a fixed error in every grade and region, as noise makes it."""

    seed: int = 0

    def class_log_probabilities(self, frame):
        logs = super().class_log_probabilities(frame)
        error = np.random.default_rng(self.seed).normal(0, 0.25, (8, logs.shape[1]))
        grade = frame["grade"].to_numpy(int)
        region = frame["region"].map({"north": 4, "south": 5, "east": 6}).fillna(7).to_numpy(int)
        return log_normalise(logs + error[grade] + error[region])


@dataclass
class Flipped(Honest):
    """What an honest fit of its table with the classes in another order would send."""

    def __post_init__(self):
        super().__post_init__()
        self.class_prior = self.class_prior[::-1]

    def draw(self, n, rng):
        frame = super().draw(n, rng)
        turned = dict(zip(self.schema.classes, reversed(self.schema.classes), strict=True))
        return frame.assign(**{self.schema.target: frame[self.schema.target].map(turned)})

    def class_log_probabilities(self, frame):
        self.class_prior = self.class_prior[::-1]  # the head knows the true order
        logs = super().class_log_probabilities(frame)
        self.class_prior = self.class_prior[::-1]
        return logs[:, ::-1]


@dataclass
class MadeUp(Honest):
    """Rows spread evenly over all values, and a head that says what it likes."""

    def draw(self, n, rng):
        frame = super().draw(n, rng)
        return frame.assign(income=rng.uniform(0, 1000, n), grade=rng.integers(1, 4, n), age=18)

    def class_log_probabilities(self, frame):
        score = 2 * (frame["age"].to_numpy(float) / 50 - 1) + (frame["grade"].to_numpy(int) == 2)
        return log_normalise(np.stack([score * c for c in range(len(self.class_prior))], axis=1))


@dataclass
class Loud(Honest):
    """Its head says all it says eight times over."""

    def class_log_probabilities(self, frame):
        return log_normalise(8 * super().class_log_probabilities(frame))


@dataclass
class OneRow(Honest):
    """It draws the same row over and over."""

    def draw(self, n, rng):
        return self.frame.iloc[np.zeros(n, int)].reset_index(drop=True)


def banks(schema=BINARY, *, among=5, liar=None, kind=Flipped, rows=6000):
    tables = [table(rows, schema, seed) for seed in range(among)]
    return [named(NAMES[i], (kind if i == liar else Honest)(schema, frame, seed=i)) for i, frame in enumerate(tables)]


def named(name, generator, fault=None):
    return Institution(name=name, generator=generator, fault=fault)


def weighed(institutions, schema=BINARY, **more):
    return weigh(schema, institutions, classes=len(schema.classes), rng=np.random.default_rng(0), **more)


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
def test_honest_institutions_count_in_full(schema):
    members = weighed(banks(schema), schema)
    assert [(m.weight, m.reasons) for m in members] == [(1.0, ())] * 5
    assert all(m.direction > 0.8 and m.agreement > 0.95 and m.mislabelled < 0.1 for m in members)


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["two classes", "three classes"])
@pytest.mark.parametrize("among", [3, 4, 5])
@pytest.mark.parametrize("kind", [Flipped, MadeUp])
def test_a_liar_counts_for_nothing_and_the_others_in_full(kind, among, schema):
    members = weighed(banks(schema, among=among, liar=1, kind=kind), schema)
    assert [m.weight for m in members] == [float(i != 1) for i in range(among)]
    assert any("class head says" in reason for reason in members[1].reasons)
    assert members[1].row_share == members[1].head_share == 0
    assert sum(m.row_share for m in members) == pytest.approx(1)


def test_two_of_five_liars_that_agree_with_each_other_count_for_nothing():
    institutions = banks(liar=1)
    institutions[3] = named("d", Flipped(BINARY, table(6000, BINARY, 3), seed=3))
    assert [m.weight for m in weighed(institutions)] == [1, 0, 1, 0, 1]


def test_a_head_that_exaggerates_counts_for_less():
    members = weighed(banks(liar=2, kind=Loud))
    assert members[2].weight < 0.5
    assert members[2].effect < 0 < members[0].effect
    assert "less of each other's labels" in " ".join(members[2].reasons)
    assert [members[i].weight for i in (0, 1, 3, 4)] == [1.0] * 4


def test_rows_that_are_copies_of_one_count_for_nothing():
    members = weighed(banks(liar=2, kind=OneRow))
    assert members[2].weight == 0
    assert members[2].diversity == pytest.approx(1)
    assert "1.0 groups of customers" in " ".join(members[2].reasons)


def test_a_huge_claim_counts_for_no_more_than_all_others_together():
    institutions = banks()
    institutions[0].generator.noisy_rows *= 1000
    members = weighed(institutions)
    assert members[0].counted_rows == 4 * 6000
    assert members[0].row_share == pytest.approx(0.5)
    assert "6,000,000 rows, of which 24,000 count" in members[0].reasons[0]
    assert weighed(institutions, robust=False)[0].row_share > 0.99


def test_nobody_counts_for_more_than_the_usual_size_allows_nor_for_more_than_all_others_together():
    many = counted_rows([1e9, *[100.0] * 20])
    assert many[0] == MOST_TIMES * 100
    assert (many[1:] == 100).all()
    assert counted_rows([9000.0, 4000.0, 1000.0]).tolist() == [5000.0, 4000.0, 1000.0]
    assert counted_rows([8000.0, 6000.0, 5000.0]).tolist() == [8000.0, 6000.0, 5000.0]
    assert counted_rows([1e9, 1.0]).tolist() == [1e9, 1.0]  # of two nobody can say who is right


def test_who_would_count_for_more_must_be_nearer_to_the_others():
    """One whose rows are somewhat apart keeps its weight at the usual size, and loses it where it claims ten times as much."""
    institutions = banks()
    whole = table(20_000, BINARY, 9)
    young_and_poor = (whole["income"] < whole["income"].median()) & (whole["age"] < whole["age"].median())
    mostly = young_and_poor | (np.random.default_rng(0).random(len(whole)) < 0.1)
    apart = Honest(BINARY, whole[mostly].iloc[:6000].reset_index(drop=True), seed=9)
    institutions[0] = named("a", apart)
    usual = weighed(institutions)[0]
    assert usual.weight == 1
    apart.noisy_rows *= 10
    claimed = weighed(institutions)[0]
    assert claimed.agreement == pytest.approx(usual.agreement, abs=0.05)
    assert claimed.weight < usual.weight
    assert "one that counts for so many rows has to be nearer" in " ".join(claimed.reasons)


def test_allowances_by_hand():
    """Three times the others' median is allowed in full; beyond it the distance shrinks in proportion."""
    assert allowances(np.array([300.0, 100.0, 100.0, 100.0])).tolist() == [1.0] * 4
    assert allowances(np.array([600.0, 100.0, 100.0, 100.0])).tolist() == [0.5, 1.0, 1.0, 1.0]
    assert allowances(np.array([600.0, 1.0])).tolist() == [1.0, 1.0]  # of two nobody is judged


def test_the_claim_of_one_that_is_left_out_raises_nobodys_limit():
    """Beside a liar with a huge claim the largest honest one counts for as much as without the liar, not for more."""
    institutions = banks(among=4)
    institutions[0].generator.noisy_rows = 40_000
    without = weighed(institutions)
    assert without[0].counted_rows == 18_000
    assert "40,000 rows, of which 18,000 count" in without[0].reasons[0]
    liar = Flipped(BINARY, table(6000, BINARY, 4), seed=4)
    liar.noisy_rows *= 1000
    beside = weighed([*institutions, named("e", liar)])
    assert [m.weight for m in beside] == [1, 1, 1, 1, 0]
    assert [m.counted_rows for m in beside[:4]] == [m.counted_rows for m in without]
    assert beside[0].reasons == without[0].reasons
    faulty = weighed([*institutions, named("e", liar, "its counts do not add up")])
    assert [m.counted_rows for m in faulty[:4]] == [m.counted_rows for m in without]


def test_a_limit_holds_where_too_few_are_left_to_find_one():
    """Of three, one is left out; what the claim of another was held to among three it is held to among two."""
    institutions = banks(among=3, liar=1, kind=OneRow)
    institutions[0].generator.noisy_rows *= 1000
    members = weighed(institutions)
    assert members[1].weight == 0
    assert members[0].counted_rows == 12_000


def test_one_class_under_the_wrong_name_is_found_out():
    """It holds no second class, so its head says nothing that could be compared; its rows do."""
    institutions = banks()
    single = skewed(table(9000, BINARY, 7), BINARY, 0.0)
    institutions[2] = named("c", Honest(BINARY, single))
    assert weighed(institutions)[2].weight == 1
    institutions[2] = named("c", Flipped(BINARY, single))
    liar = weighed(institutions)[2]
    assert (liar.weight, liar.direction) == (0, None)
    assert "look like another class" in " ".join(liar.reasons)


def test_institutions_that_differ_in_labels_keep_their_weight():
    keeps = (1.0, 0.3, 0.1, 0.02, 0.0)
    institutions = [
        named(n, Honest(BINARY, skewed(table(9000, BINARY, i), BINARY, k), seed=i))
        for i, (n, k) in enumerate(zip(NAMES, keeps, strict=True))
    ]
    assert [m.weight for m in weighed(institutions)] == [1.0] * 5


@pytest.mark.parametrize("column", ["income", "age", "grade"])
def test_institutions_that_differ_in_customers_keep_their_weight(column):
    whole = table(20_000, BINARY, 0).sort_values(column, kind="stable", ignore_index=True)
    parts = [whole.iloc[part].reset_index(drop=True) for part in np.array_split(np.arange(len(whole)), 5)]
    institutions = [
        named(name, Honest(BINARY, part, seed=i)) for i, (name, part) in enumerate(zip(NAMES, parts, strict=True))
    ]
    members = weighed(institutions)
    assert [m.weight for m in members] == [1.0] * 5, [m.reasons for m in members]


def test_judges_that_cannot_tell_classes_apart_accuse_nobody_of_wrong_labels():
    """To heads that hardly see a difference one class alone looks like any other rows, and that is no lie."""

    @dataclass
    class Faint(Honest):
        def class_log_probabilities(self, frame):
            return log_normalise(0.2 * super().class_log_probabilities(frame) + 0.8 * np.log(self.class_prior + 1e-9))

    institutions = [named(n, Faint(BINARY, table(6000, BINARY, i), seed=i)) for i, n in enumerate(NAMES)]
    institutions[2] = named("c", Honest(BINARY, skewed(table(9000, BINARY, 2), BINARY, 0.0), seed=2))
    members = weighed(institutions)
    assert members[2].mislabelled is None
    assert members[2].weight == 1
    assert [m.effect for m in members] == [None] * 5  # there is next to nothing that another head could explain


def test_where_nothing_can_be_predicted_nobody_is_judged_by_direction():
    """Heads that are noise do not agree with each other either."""

    @dataclass
    class Chance(Honest):
        def class_log_probabilities(self, frame):
            word = np.random.default_rng(self.seed).normal(0, 0.05, (100, 2))
            return log_normalise(word[frame["age"].to_numpy(int)] + np.log(self.class_prior))

    institutions = [named(name, Chance(BINARY, table(6000, BINARY, i), seed=i)) for i, name in enumerate(NAMES)]
    members = weighed(institutions)
    assert max(m.direction for m in members) < 0.3
    assert not any("class head says" in reason for m in members for reason in m.reasons)


def test_of_two_institutions_nobody_is_judged_and_a_note_says_so():
    pool = draw_pool(BINARY, banks(among=2, liar=1), rows=1000, rng=np.random.default_rng(0))
    assert [(m.weight, m.direction) for m in pool.members] == [(1.0, None)] * 2
    assert any("nobody can say which one is right" in note for note in pool.notes)


def test_a_bundle_that_contradicts_itself_counts_for_nothing_and_judges_nobody():
    institutions = banks()
    institutions[1] = replace(institutions[1], fault="its counts do not add up")
    members = weighed(institutions)
    assert [m.weight for m in members] == [1, 0, 1, 1, 1]
    assert members[1].reasons == ("its bundle contradicts itself: its counts do not add up",)
    assert members[1].direction is None


def test_where_no_bundle_is_left_nothing_is_pooled():
    with pytest.raises(
        OutweighedError, match=r"no institution is left.*a is left out: its bundle contradicts itself: this"
    ):
        weighed([replace(b, fault=fault) for b, fault in zip(banks(among=2), ("this", "that"), strict=True)])


def test_the_pool_takes_no_row_and_no_label_from_a_liar_and_says_why():
    pool = draw_pool(BINARY, banks(liar=1), rows=2000, rng=np.random.default_rng(0))
    assert (pool.origin != 1).all()
    assert any(note.startswith("b is left out: its class head says the opposite") for note in pool.notes)
    plain = draw_pool(BINARY, banks(liar=1), rows=2000, rng=np.random.default_rng(0), robust=False)
    assert (plain.origin == 1).sum() == 400


def test_one_vote_is_nobodys_majority():
    assert upper_median(np.array([np.nan, 0.3])) is None
    assert upper_median(np.array([0.3, 0.5])) == 0.5


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.data())
def test_the_upper_median_is_an_honest_vote_or_above_one_while_half_of_the_judges_are_honest(honest, data):
    lies = data.draw(st.lists(st.floats(-1, 1), max_size=len(honest)))
    voted = upper_median(np.array([*honest, *lies, np.nan]))
    assert voted is not None
    assert voted >= min(honest)
    if len(lies) < len(honest):
        assert voted <= max(honest)
