"""How releases add up against a grant: by basic composition, or by Renyi DP at one order fixed beforehand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.common.keys import generate_key
from distill.errors import BudgetError, ConfigError, LedgerError, LedgerTamperedError
from distill.ledger import create_ledger, open_ledger
from distill.ledger.entries.bodies import GrantBody, ReserveBody
from distill.ledger.proof import check_proof
from distill.ledger.rules.filters import Charge, Grant, Sum
from distill.privacy.accountant import epsilon, epsilon_from_renyi, renyi_within
from distill.privacy.events import Event, gaussian_renyi, renyi_of
from tests.fakes.ledgers import BUNDLE, DATASET, REST, SIZE, put, reserve

WHY = {"reason": "because", "actor": "somebody"}
BUDGET = {"epsilon": 4.0, "delta": 1e-5}


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return generate_key(tmp_path_factory.mktemp("keys") / "k.pem")


@pytest.fixture
def ledger(tmp_path, key):
    return create_ledger(tmp_path / "l.db", dataset=DATASET, unit="row", key=key)


def fitting(ledger, key, epsilon, delta, most=200):
    """How many equal releases a ledger lets through."""
    for number in range(most):
        try:
            reserve(ledger, key, epsilon, delta)
        except BudgetError:
            return number
    return most


def test_a_renyi_filter_lets_more_equal_releases_through_and_never_more_than_it_may(tmp_path, key):
    """Eight Gaussian releases of epsilon 0.5 cost far less than 4 together; the sum of epsilons does not know it."""
    counts = {}
    for name, options in {"basic": {}, "renyi": {"filter": "renyi"}}.items():
        books = create_ledger(tmp_path / f"{name}.db", dataset=DATASET, unit="row", key=key)
        books.grant(**BUDGET, **options, **WHY, key=key)
        counts[name] = fitting(books, key, 0.5, 1e-6)
        total = books.summary()
        assert total.spent_epsilon <= 4.0 * (1 + 1e-9)
        assert total.spent_delta <= 1e-5 * (1 + 1e-9)
        books.verify(key.public_hex)
    assert counts["basic"] == 8
    assert counts["renyi"] > 2 * counts["basic"]


def test_what_the_filter_counts_is_the_sum_at_its_order_converted_once(ledger, key):
    ledger.grant(**BUDGET, filter="renyi", order=8, **WHY, key=key)
    for asked in (0.6, 1.0):
        reserve(ledger, key, asked, 1e-6).plan(REST)
    summary = ledger.summary()
    reserved = [gaussian_renyi(asked, 1e-6, 8) for asked in (0.6, 1.0)]
    assert [r.renyi for r in summary.releases] == reserved
    assert summary.spent_epsilon == pytest.approx(epsilon_from_renyi(8, sum(reserved), 1e-5), rel=1e-12)
    assert summary.spent_delta == 1e-5
    for release in summary.releases:
        assert release.renyi_release == renyi_of([SIZE, *REST], 8) <= release.renyi


def test_a_plan_must_keep_to_the_renyi_limit_too(ledger, key):
    """A rarely sampled, nearly noiseless step costs little epsilon by PLD and much Renyi DP at a high order."""
    ledger.grant(epsilon=8.0, delta=1e-4, filter="renyi", order=32, **WHY, key=key)
    release = reserve(ledger, key, 0.9, 1e-5)
    spiky = Event(
        name="sgd", mechanism="poisson_gaussian", noise_multiplier=0.9, sampling_rate=0.004, count=20, round=1
    )
    assert epsilon([e.model_dump(mode="json") for e in (SIZE, spiky)], 1e-5) < 0.9
    assert renyi_of([SIZE, spiky], 32) > release.limit.most
    with pytest.raises(BudgetError, match="Renyi DP"):
        release.plan([spiky])
    release.plan(REST)


def test_ended_and_rehearsed_releases_count_what_they_did(ledger, key):
    ledger.grant(**BUDGET, filter="renyi", order=8, **WHY, key=key)
    reserve(ledger, key, 1.0, rehearsal=True).plan(REST)
    assert ledger.summary().spent_epsilon == 0
    reserve(ledger, key, 1.0).abandon("too small")
    cost = renyi_of([SIZE], 8)
    assert ledger.summary().spent_epsilon == pytest.approx(epsilon_from_renyi(8, cost, 1e-5), rel=1e-12)
    done = reserve(ledger, key, 1.0)
    done.plan(REST)
    done.commit(BUNDLE)
    assert ledger.summary().spent_epsilon > 0.3
    ledger.verify(key.public_hex)


def test_the_way_of_adding_up_is_fixed_by_the_first_release(ledger, key):
    ledger.grant(**BUDGET, **WHY, key=key)
    ledger.grant(**BUDGET, filter="renyi", order=4, **WHY, key=key)  # nothing was released yet
    ledger.grant(epsilon=5.0, delta=1e-5, **WHY, key=key)
    assert (ledger.summary().filter, ledger.summary().order) == ("renyi", 4)
    reserve(ledger, key)
    for options in ({"filter": "basic"}, {"order": 5.0}, {"filter": "renyi", "order": 3.0}):
        with pytest.raises(ConfigError, match=r"a Renyi filter of order 4, .* cannot change now"):
            ledger.grant(**BUDGET, **options, **WHY, key=key)
    ledger.grant(epsilon=6.0, delta=1e-5, **WHY, key=key)
    assert (ledger.summary().order, ledger.summary().granted_epsilon) == (4, 6.0)


def test_basic_composition_is_the_default_and_takes_no_order(ledger, key):
    with pytest.raises(ConfigError, match="an order belongs to a Renyi filter"):
        ledger.grant(**BUDGET, order=8, **WHY, key=key)
    ledger.grant(**BUDGET, **WHY, key=key)
    reserve(ledger, key)
    with pytest.raises(ConfigError, match=r"basic composition, .* cannot change now"):
        ledger.grant(**BUDGET, filter="renyi", **WHY, key=key)


def test_a_filter_at_which_nothing_fits_is_refused(ledger, key):
    with pytest.raises(ConfigError, match=r"no Renyi filter for epsilon 0\.1 at delta 1e-05: at Renyi order 2"):
        ledger.grant(epsilon=0.1, delta=1e-5, filter="renyi", order=2, **WHY, key=key)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"renyi": None, "renyi_release": None}, "not counted as the grant says"),
        ({"renyi": 50.0}, "the granted epsilon was exceeded"),
        ({"renyi_release": None}, "its cost as Renyi DP is missing"),
        ({"renyi": 1e-9}, "cost more than the release reserved"),
        ({"epsilon_total": 0.1}, "running totals do not add up"),
        ({"delta_total": 1e-6}, "running totals do not add up"),
    ],
)
def test_a_signer_who_cheats_the_filter_is_noticed(ledger, key, changes, problem):
    ledger.grant(**BUDGET, filter="renyi", order=8, **WHY, key=key)
    renyi = gaussian_renyi(1.0, 1e-5, 8)
    fields = {
        "release": "a" * 32,
        "purpose": "p",
        "rehearsal": False,
        "warning": "",
        "epsilon": 1.0,
        "delta": 1e-5,
        "renyi": renyi,
        "renyi_release": renyi_of([SIZE], 8),
        "events": (SIZE,),
        "epsilon_release": 0.01,
        "epsilon_total": epsilon_from_renyi(8, renyi, 1e-5),
        "delta_total": 1e-5,
    }
    put(ledger, "reserve", ReserveBody.model_validate(fields | changes), key)
    with pytest.raises(LedgerTamperedError, match=problem):
        open_ledger(ledger.path)


def test_an_understated_renyi_cost_is_found_by_recomputing(ledger, key):
    ledger.grant(**BUDGET, filter="renyi", order=8, **WHY, key=key)
    renyi = gaussian_renyi(1.0, 1e-5, 8)
    body = ReserveBody(
        release="a" * 32,
        purpose="p",
        rehearsal=False,
        warning="",
        epsilon=1.0,
        delta=1e-5,
        renyi=renyi,
        renyi_release=renyi_of([SIZE], 8) / 2,
        events=(SIZE,),
        epsilon_release=0.01,
        epsilon_total=epsilon_from_renyi(8, renyi, 1e-5),
        delta_total=1e-5,
    )
    put(ledger, "reserve", body, key)
    with pytest.raises(LedgerTamperedError, match=r"entry 3 \(reserve\): it states Renyi DP"):
        open_ledger(ledger.path).verify()


def test_a_filter_swapped_by_a_forger_is_noticed(ledger, key):
    ledger.grant(**BUDGET, **WHY, key=key)
    reserve(ledger, key)
    put(ledger, "grant", GrantBody(**BUDGET, reason="r", filter="renyi", order=8), key)
    with pytest.raises(LedgerTamperedError, match=r"entry 4 \(grant\): how releases are added up cannot change"):
        open_ledger(ledger.path)


def test_the_proof_of_a_filtered_release_checks(ledger, key):
    ledger.grant(**BUDGET, filter="renyi", order=8, **WHY, key=key)
    release = reserve(ledger, key, 1.0)
    release.plan(REST)
    proven = check_proof(release.proof(), key.public_hex)
    assert (proven.grant, proven.sequence) == (Grant(**BUDGET, order=8), 3)
    assert proven.epsilon_total == ledger.summary().spent_epsilon


# --- closing what did not finish --------------------------------------------------------------------------------------


def test_a_planned_release_that_crashed_is_closed_as_spent(ledger, key):
    ledger.grant(epsilon=2.0, delta=1e-4, **WHY, key=key)
    crashed = reserve(ledger, key, 0.5)
    crashed.plan(REST)
    entry = ledger.resolve(crashed.release[:6], key=key, **WHY)
    summary = ledger.summary()
    assert (summary.spent_epsilon, summary.spent_delta, summary.standing) == (0.5, 1e-5, ())
    assert entry.body["epsilon_total"] == 0.5
    with pytest.raises(LedgerError, match="the release is resolved, not planned"):
        crashed.commit(BUNDLE)  # the process was alive after all: it cannot release any more


def test_a_release_that_was_never_planned_costs_its_row_count(ledger, key):
    """Its plan would be on the books before anything but the row count was read; and it cannot be planned any more."""
    ledger.grant(epsilon=2.0, delta=1e-4, **WHY, key=key)
    crashed = reserve(ledger, key, 0.5)
    ledger.resolve(crashed.release, key=key, **WHY)
    assert ledger.summary().spent_epsilon == pytest.approx(0.01)
    assert ledger.summary().spent_delta == 0
    with pytest.raises(LedgerError, match="the release is already resolved"):
        crashed.plan(REST)
    ledger.verify(key.public_hex)


def test_only_one_standing_release_is_closed_at_a_time(ledger, key):
    ledger.grant(epsilon=2.0, delta=1e-4, **WHY, key=key)
    first, second = reserve(ledger, key, 0.5), reserve(ledger, key, 0.5)
    with pytest.raises(LedgerError, match=f"no standing release .*standing: {first.release[:8]}, {second.release[:8]}"):
        ledger.resolve("zzz", key=key, **WHY)
    with pytest.raises(LedgerError, match="no standing release"):
        ledger.resolve("", key=key, **WHY)
    ledger.resolve(first.release, key=key, **WHY)
    with pytest.raises(LedgerError, match="no standing release"):
        ledger.resolve(first.release, key=key, **WHY)


def test_links_are_kept_by_data_set(ledger, key):
    ledger.link("f" * 32, name="cards", key=key, **WHY)
    assert [(link.dataset, link.name) for link in ledger.summary().links] == [("f" * 32, "cards")]
    with pytest.raises(LedgerError, match="cannot share units with itself"):
        ledger.link(DATASET, name="me", key=key, **WHY)


# --- sums -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.floats(0, 1e3)] * 3), max_size=30), st.data())
def test_a_running_sum_is_the_exact_sum_whatever_came_and_went(parts, data):
    charges = [Charge(*part) for part in parts]
    running = Sum()
    for charge in charges:
        running.add(Charge(1.0, 2.0, 3.0))
        running.add(charge, instead_of=Charge(1.0, 2.0, 3.0))
    shuffled = data.draw(st.permutations(charges))
    assert running.total == Sum(shuffled).total
    assert running.total.epsilon == math.fsum(c.epsilon for c in charges)


@settings(max_examples=50)
@given(st.floats(0.5, 20), st.floats(1e-9, 1e-3), st.sampled_from([4.0, 8.0, 32.0]), st.floats(0, 2))
def test_a_renyi_grant_is_exceeded_exactly_beyond_what_converts_to_it(granted, delta, order, part):
    try:
        most = renyi_within(order, granted, delta)
    except ValueError:
        return
    grant, total = Grant(epsilon=granted, delta=delta, order=order), Charge(renyi=part * most)
    assert (grant.exceeded(total) is None) == (part <= 1 + 1e-9)
    if grant.exceeded(total) is None:
        assert grant.spent(total)[0] <= granted * (1 + 1e-9)
