"""The audit report says what the ledger's verification says, its bounds are bounds, and the page needs nothing beside it."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.audit import audit, bounded_posterior, most_detected
from distill.audit.report import page as page_module
from distill.audit.report.charts import spending
from distill.audit.report.curves import DELTAS, curves_of
from distill.audit.report.history import Moment, people
from distill.audit.report.page import day_text, least_percent, most_percent, render
from distill.audit.report.risk import meaning_of
from distill.audit.report.wording import read_in_words, worlds
from distill.common.keys import generate_key
from distill.errors import ConfigError, LedgerTamperedError
from distill.ledger import Member, create_ledger, open_ledger
from distill.ledger.entries import store as ledger_store
from distill.privacy import accountant
from distill.privacy.events import Event

DATASET, OTHER, THIRD = "0" * 31 + "1", "0" * 31 + "2", "0" * 31 + "3"
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0, purpose="noisy row count")
REST = (
    Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, blocks=10, round=1),
    Event(name="sgd", mechanism="poisson_gaussian", noise_multiplier=6.0, sampling_rate=0.05, count=200, round=1),
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: generate_key(folder / f"{name}.pem") for name in ("officer", "operator", "new")}


def opened(keys, path, dataset=DATASET, unit="row", epsilon=2.0):
    members = [
        Member(role=role, name=f"the {role}", public_key=keys[role].public_hex) for role in ("officer", "operator")
    ]
    ledger = create_ledger(path, dataset=dataset, unit=unit, key=keys["officer"], members=members)
    ledger.grant(epsilon=epsilon, delta=1e-4, reason="first year", actor="weber", key=keys["officer"])
    return ledger


def reserve(ledger, keys, epsilon=0.5, purpose="credit scores", **options):
    return ledger.reserve(
        epsilon=epsilon, delta=1e-5, purpose=purpose, actor="keller", events=[SIZE], key=keys["operator"], **options
    )


@pytest.fixture
def ledger(tmp_path, keys):
    return opened(keys, tmp_path / "loans" / "ledger.db")


@pytest.fixture(autouse=True)
def without_figures(monkeypatch, request):
    """Drawing takes a second a page; tests that look at figures ask for `drawn`."""
    if "drawn" not in request.fixturenames:
        names = ("spending", "beliefs", "curves")
        monkeypatch.setattr(page_module, "all_figures", lambda _: dict.fromkeys(names, "data:image/svg+xml;base64,"))


@pytest.fixture
def drawn():
    """The page has its figures."""


@pytest.fixture
def busy(ledger, keys):
    """One committed, one abandoned, one rehearsed and one standing release; a raised grant."""
    first = reserve(ledger, keys)
    first.plan(REST)
    first.commit("ab" * 32)
    reserve(ledger, keys, purpose="trial").abandon("the table is too small")
    reserve(ledger, keys, purpose="dry run", rehearsal=True)
    ledger.grant(epsilon=2.5, delta=1e-4, reason="second year", actor="weber", key=keys["officer"])
    reserve(ledger, keys, 0.6, purpose="second model").plan(REST)
    return ledger


# --- what the numbers mean --------------------------------------------------------------------------------------------


def worst_mechanism(epsilon, delta):
    """The chances of four outputs in each world; every bound of (epsilon, delta) is met with equality: arXiv:1311.0776."""
    likely, rare = (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon)), (1 - delta) / (1 + math.exp(epsilon))
    return [(delta, 0.0), (likely, rare), (rare, likely), (0.0, delta)]


@given(st.floats(0.001, 0.999), st.floats(0.01, 8.0))
def test_a_belief_moves_no_further_than_the_worst_mechanism_moves_it(prior, epsilon):
    posteriors = [
        prior * a / (prior * a + (1 - prior) * b) for a, b in worst_mechanism(epsilon, 0.0) if a > 0 and b > 0
    ]
    assert max(posteriors) == pytest.approx(bounded_posterior(prior, epsilon), rel=1e-9)
    assert min(posteriors) == pytest.approx(bounded_posterior(prior, -epsilon), rel=1e-9)


@given(st.floats(0.001, 0.5), st.floats(0.01, 8.0), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_the_best_test_on_the_worst_mechanism_finds_exactly_the_bound(alarms, epsilon, delta):
    """Neyman-Pearson: take outputs by falling likelihood ratio, the last one with a coin."""
    found, left = 0.0, alarms
    for here, elsewhere in worst_mechanism(epsilon, delta):
        share = 1.0 if elsewhere <= left else left / elsewhere
        found, left = found + share * here, max(0.0, left - share * elsewhere)
    assert most_detected(alarms, epsilon, delta) == pytest.approx(found, rel=1e-9)


def test_no_epsilon_moves_nothing_and_an_absurd_one_breaks_nothing():
    assert bounded_posterior(0.01, 5000.0) == 1.0
    assert bounded_posterior(0.01, -5000.0) == pytest.approx(0.0)
    assert most_detected(0.01, 5000.0, 1e-5) == 1.0
    assert meaning_of(0.0, 0.0).beliefs[0].highest == pytest.approx(0.01)
    for belief in meaning_of(1.0, 1e-5).beliefs:
        assert belief.lowest < belief.prior < belief.highest
    with pytest.raises(ConfigError, match="prior"):
        bounded_posterior(0.0, 1.0)


@given(st.floats(0.0, 1.0))
def test_bounds_are_rounded_to_the_side_on_which_they_stay_bounds(share):
    assert float(most_percent(share).rstrip(" %")) >= share * 100 - 1e-6
    assert float(least_percent(share).rstrip(" %")) <= share * 100 + 1e-6


# --- the report against the verification ------------------------------------------------------------------------------


def test_the_report_says_what_the_verification_says(busy, keys):
    found = audit(busy, keys["officer"].public_hex, name="Bank")
    verification = busy.verify(keys["officer"].public_hex)
    assert found.verification == verification
    assert (found.spent.epsilon, found.spent.delta) == (
        verification.summary.spent_epsilon,
        verification.summary.spent_delta,
    )
    assert found.granted.epsilon == 2.5
    assert [line.audited for line in found.releases] == list(verification.releases)
    assert (found.moments[-1].spent_epsilon, found.moments[-1].granted_epsilon) == (found.spent.epsilon, 2.5)
    assert [m.sequence for m in found.moments] == list(range(1, verification.summary.entries + 1))
    assert [g.reason for g in found.grants] == ["first year", "second year"]
    assert found.releases[1].closing == "the table is too small"


def test_the_page_shows_the_figures_of_the_verification(busy, keys):
    page = render(audit(busy, keys["officer"].public_hex, name="Bank"))
    verification = busy.verify(keys["officer"].public_hex)
    summary, text = verification.summary, text_of(page)
    for value in (summary.spent_epsilon, summary.granted_epsilon, summary.remaining_epsilon):
        assert f"{value:.4g}" in text
    for release in verification.releases:
        assert f"{release.epsilon_pld:.4g}" in text
        assert f"{release.epsilon_rdp:.4g}" in text
        assert release.release[:8] in text
    for check in verification.checks:
        assert check in text
    for belief in meaning_of(summary.spent_epsilon, summary.spent_delta).beliefs:
        assert f"{least_percent(belief.lowest)} to {most_percent(belief.highest)}" in text
    assert summary.head in text
    assert "vouches for entries 1 to 9 of 11" in text
    assert "begun, not finished; counts in full" in text
    assert "1 rehearsal. A rehearsal’s noise can be repeated" in text
    assert f"ε = {summary.granted_epsilon:.4g} at δ = 0.0001" in text


def test_a_ledger_that_does_not_verify_gets_no_report(busy):
    with ledger_store.writing(busy.path) as connection:
        trigger = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'entries_update'").fetchone()[0]
        connection.execute("DROP TRIGGER entries_update")
        connection.execute("UPDATE entries SET entry = replace(entry, 'credit scores', 'credit scoreX')")
        connection.execute(trigger.decode())
    with pytest.raises(LedgerTamperedError, match="contents do not match"):
        audit(busy)


def test_a_key_that_nobody_signed_with_is_refused(busy, keys):
    with pytest.raises(LedgerTamperedError, match="was expected"):
        audit(busy, keys["new"].public_hex)


def test_without_a_key_from_outside_the_page_says_so(busy):
    assert "No public key was given from outside" in text_of(render(audit(busy)))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("grant", [True, False])
def test_a_ledger_without_releases_gives_a_report(tmp_path, keys, grant):
    ledger = (
        opened(keys, tmp_path / "l.db")
        if grant
        else create_ledger(tmp_path / "l.db", dataset=DATASET, unit="row", key=keys["officer"])
    )
    found = audit(ledger)
    assert found.spent is None
    assert found.curves.counted is None
    text = text_of(render(found))
    assert "There has been no release" in text
    assert ("Nothing has been granted yet" in text) != grant
    assert ("One key is officer and operator at once" in text) != grant


def test_a_grant_lowered_below_what_is_spent_is_told(busy, keys):
    busy.grant(epsilon=0.5, delta=1e-4, reason="stop", actor="weber", key=keys["officer"])
    assert "More is spent than is granted now" in text_of(render(audit(busy)))


# --- the page itself --------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.text, self.links, self.tags, self._hidden = [], [], set(), False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self._hidden = tag == "style"
        self.links += [v for name, v in attributes if name in ("src", "href", "action", "data", "srcset", "poster")]

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.text.append(data)


def text_of(page):
    return re.sub(r"\s+", " ", "".join(_Page(page).text))


@pytest.mark.usefixtures("drawn")
def test_the_page_fetches_nothing_and_runs_nothing(busy):
    page = render(audit(busy, name="Bank"))
    parsed = _Page(page)
    assert parsed.links
    assert [link for link in parsed.links if not link.startswith(("data:image/svg+xml;base64,", "#s"))] == []
    assert not parsed.tags & {"script", "iframe", "object", "embed", "link", "form"}
    assert "http" not in re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "", page).replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("<img ") == page.count(" alt=") == 3


def test_what_people_wrote_is_escaped(ledger, keys):
    ledger.grant(epsilon=2.0, delta=1e-4, reason="<script>alert(1)</script> $x$", actor="<b>", key=keys["officer"])
    page = render(audit(ledger, name="<i>Bank</i>"))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>Bank" not in page


def test_nothing_but_the_ledger_is_in_the_page(busy):
    """No path of this machine, no user: only what entries say."""
    page = render(audit(busy, name="Bank"))
    assert str(busy.path) not in page
    assert busy.path.parent.parent.name not in page


def test_figures_about_usefulness_are_attached_and_make_the_report_internal(busy, tmp_path):
    (tmp_path / "figures.json").write_text(json.dumps({"roc_auc": 0.789, "word": "<keep> inside"}))
    text = text_of(page := render(audit(busy, utility=tmp_path / "figures.json")))
    assert "For use in this house only" in text
    assert "roc_auc" in text
    assert "0.789" in text
    assert "&lt;keep&gt;" in page
    (tmp_path / "note.txt").write_text("good enough for ranking")
    assert "good enough for ranking" in text_of(render(audit(busy, utility=tmp_path / "note.txt")))
    assert "For use in this house only" not in text_of(render(audit(busy)))


@pytest.mark.parametrize(("data", "problem"), [(b"\xff\xfe", "is not text"), (b"x" * 100_001, "larger than")])
def test_a_useless_attachment_is_refused(busy, tmp_path, data, problem):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ConfigError, match=problem):
        audit(busy, utility=tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot read"):
        audit(busy, utility=tmp_path / "missing")


def test_the_worlds_are_those_of_the_unit():
    row, one, many = worlds("row", 1), worlds("customer_id", 1), worlds("customer_id", 5)
    assert "each row" in row.warning
    assert "customer_id" in one.with_it
    assert "one row" in one.warning
    assert "at most 5 rows" in many.warning


def test_a_read_is_told_with_the_noise_that_it_has():
    assert "standard deviation 141" in read_in_words(SIZE)  # Laplace of scale 100
    assert "10 tables together" in read_in_words(REST[0])
    assert "standard deviation 63.2" in read_in_words(REST[0])  # 20 * sqrt(10)
    assert "200 training steps" in read_in_words(REST[1])
    assert "5 % of the units" in read_in_words(REST[1])
    assert "up to 3 rows" in read_in_words(SIZE.model_copy(update={"rows_per_unit": 3}))
    assert day_text("2026-03-03T09:05:00.000+00:00") == "3 March 2026"


# --- curves -----------------------------------------------------------------------------------------------------------


def test_curves_fall_with_delta_and_meet_the_books(busy):
    summary = busy.summary()
    found = curves_of(summary.releases, order=None, delta=summary.spent_delta)
    assert len(found.releases) == 3  # the rehearsal is left out
    for curve in (*found.releases, found.counted, found.joint):
        assert all(a >= b for a, b in zip(curve.epsilons, curve.epsilons[1:], strict=False))
    at = DELTAS.index(1e-5)
    assert found.releases[0].epsilons[at] == pytest.approx(summary.releases[0].epsilon_release, rel=1e-9)
    assert all(
        sum(e) >= j
        for e, j in zip(zip(*(c.epsilons for c in found.releases), strict=True), found.joint.epsilons, strict=True)
    )
    assert found.joint_epsilon < found.counted.epsilons[at] < summary.spent_epsilon
    # At twice the delta of one release, each of the two that spend delta stands at its own.
    both = accountant.epsilon(stored(summary.releases[0]), 5e-6) + accountant.epsilon(stored(summary.releases[3]), 5e-6)
    assert found.counted.epsilons[at] == pytest.approx(both + summary.releases[1].epsilon_release, rel=1e-9)


def test_under_a_renyi_filter_the_curve_of_all_is_the_filters(tmp_path, keys):
    ledger = opened(keys, tmp_path / "l.db")
    ledger.grant(epsilon=2.0, delta=1e-5, reason="r", actor="a", key=keys["officer"], filter="renyi")
    for _ in range(2):
        reserve(ledger, keys).plan([e.model_copy(update={"noise_multiplier": 60.0}) for e in REST])
    summary = ledger.summary()
    found = curves_of(summary.releases, order=summary.order, delta=summary.spent_delta)
    cost = sum(r.renyi_release for r in summary.releases)
    assert found.counted.epsilons[DELTAS.index(1e-5)] == pytest.approx(
        accountant.epsilon_from_renyi(summary.order, cost, 1e-5)
    )
    assert "Renyi filter</b> of order" in render(audit(ledger))


def stored(release):
    return [e.model_dump(mode="json") for e in release.events]


# --- who could sign ---------------------------------------------------------------------------------------------------


def test_everyone_who_held_a_role_is_listed_with_the_entries_that_gave_and_took_it(busy, keys):
    officer, operator, new = (keys[name].public_hex for name in ("officer", "operator", "new"))
    busy.rotate(keys["new"], reason="yearly", actor="weber", key=keys["officer"])
    second = Member(role="officer", name="deputy", public_key="c" * 64)
    busy.enrol(second, reason="holidays", actor="weber", key=keys["new"])
    busy.retire("officer", "c" * 64, reason="left", actor="weber", key=keys["new"])
    found = {(p.role, p.public_key): (p.since, p.until) for p in people(busy.entries())}
    assert found == {
        ("officer", officer): (1, 12),
        ("operator", operator): (1, None),
        ("officer", new): (12, None),
        ("officer", "c" * 64): (13, 14),
    }
    now = {(m.role, m.public_key) for m in busy.summary().members}
    assert {key for key, (_, until) in found.items() if until is None} == now
    text = text_of(render(audit(busy)))
    assert "handed over" in text
    assert "officer deputy was enrolled" in text


# --- linked data sets -------------------------------------------------------------------------------------------------


@pytest.fixture
def claims(tmp_path, keys):
    """Another data set with one release."""
    other = opened(keys, tmp_path / "claims" / "ledger.db", dataset=OTHER, unit="customer", epsilon=1.0)
    reserve(other, keys, 0.3)
    return other


@pytest.mark.parametrize("declared_here", [True, False])
def test_linked_data_sets_add_up_whichever_ledger_declares_it(busy, claims, keys, declared_here):
    mine, theirs = (busy, claims) if declared_here else (claims, busy)
    mine.link(theirs.dataset, name="the other", reason="same customers", actor="weber", key=keys["officer"])
    found = audit(busy, others=[claims.path]).linked
    assert found.spent_epsilon == busy.summary().spent_epsilon + 0.3
    assert found.spent_delta == busy.summary().spent_delta + 1e-5
    assert (found.granted_epsilon, found.missing, found.units_differ) == (3.5, (), True)
    assert found.neighbours[0].name == ("the other" if declared_here else "claims")
    assert "The units differ" in text_of(render(audit(busy, others=[claims.path])))


def test_a_ledger_that_is_not_linked_is_refused_with_the_mend(busy, claims):
    with pytest.raises(ConfigError, match=r"not linked .* in either direction.*distill ledger link"):
        audit(busy, others=[claims.path])


def test_no_ledger_counts_twice(busy, claims, keys):
    busy.link(OTHER, name="claims", reason="same customers", actor="weber", key=keys["officer"])
    with pytest.raises(ConfigError, match="given already"):
        audit(busy, others=[claims.path, claims.path])
    with pytest.raises(ConfigError, match="same data set"):
        audit(busy, others=[busy.path])


def test_a_linked_ledger_that_was_not_given_is_named_and_the_sum_called_unknown(busy, claims, keys):
    busy.link(OTHER, name="claims", reason="same customers", actor="weber", key=keys["officer"])
    claims.link(THIRD, name="cards", reason="same group", actor="weber", key=keys["officer"])
    assert [(m.name, m.declared_by) for m in audit(busy).linked.missing] == [("claims", "this ledger")]
    found = audit(busy, others=[claims.path])
    assert [(m.name, m.dataset, m.declared_by) for m in found.linked.missing] == [("cards", THIRD, "claims")]
    text = text_of(render(found))
    assert "cards: not included" in text
    assert "the sum is unknown" in text
    assert "the rest being unknown" in text


def test_a_linked_ledger_that_does_not_verify_is_refused(busy, claims, keys):
    busy.link(OTHER, name="claims", reason="same customers", actor="weber", key=keys["officer"])
    with ledger_store.writing(claims.path) as connection:
        connection.execute("DROP TRIGGER head_update")
    with pytest.raises(LedgerTamperedError, match="triggers"):
        audit(busy, others=[claims.path])


def test_a_given_key_is_checked_in_the_linked_ledgers_that_know_it(busy, claims, keys):
    busy.link(OTHER, name="claims", reason="same customers", actor="weber", key=keys["officer"])
    found = audit(busy, keys["operator"].public_hex, others=[claims.path]).linked.neighbours[0].verification
    assert (found.key_given, found.vouched) == (True, 3)
    assert open_ledger(claims.path).summary().entries == 3


@pytest.mark.parametrize("seconds", [0.001, 150, 86_400, 3e8])
def test_spending_is_drawn_over_a_moment_and_over_years(seconds):
    """Some spans leave the library without round ticks, which it would warn of."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    books = {"granted_epsilon": 2.0, "granted_delta": 1e-5, "spent_epsilon": 1.0, "spent_delta": 1e-6}
    moments = [
        Moment(sequence=number, moment=first + timedelta(seconds=number * seconds), **books) for number in range(3)
    ]
    assert spending(moments).startswith("data:image/")
