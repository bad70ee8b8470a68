"""FedSGD, FedAvg and FedAdam on the case worked by hand in `federated_fakes`, and what defines each of them."""

import numpy as np
import pytest

from distill.errors import ConfigError
from server_train.federated.strategies.fedadam import FedAdam
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.fedsgd import FedSgd
from tests.fakes.federations import A_BEST, A_ROWS, B_BEST, B_ROWS, LeastSquares, client, play, two_clients

ORIGIN = np.zeros(2)


def test_fedsgd_reproduces_two_rounds_worked_by_hand():
    # Round 1 from (0, 0): gradients A (-2, 4) and B (-1.5, -0.5);
    #   mean 1/4 * (-2, 4) + 3/4 * (-1.5, -0.5) = (-1.625, 0.625), half a step against it: (0.8125, -0.3125).
    # Round 2: gradients A 2 * (0.8125 - 1, -0.3125 + 2) = (-0.375, 3.375)
    #                and B 1/2 * (0.8125 - 3, -0.3125 - 1) = (-1.09375, -0.65625);
    #   mean (-0.09375 - 0.8203125, 0.84375 - 0.4921875) = (-0.9140625, 0.3515625), half a step:
    #   (0.8125 + 0.45703125, -0.3125 - 0.17578125).
    path = play(FedSgd(server_rate=0.5), two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx([0.8125, -0.3125], abs=1e-6)
    assert path[1] == pytest.approx([1.26953125, -0.48828125], abs=1e-6)


def test_fedsgd_is_gradient_descent_on_the_pooled_rows(seed):
    rng = np.random.default_rng(seed)
    tables = [(rng.normal(size=(rows, 2)), rng.normal(size=rows)) for rows in (3, 11, 40)]
    start, rate = rng.normal(size=2), 0.3
    pooled_x, pooled_y = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    central = start - rate * LeastSquares().gradient(start, pooled_x, pooled_y)
    path = play(FedSgd(server_rate=rate), [client(table, i, epochs=7) for i, table in enumerate(tables)], start, 1)
    assert path[0] == pytest.approx(central, abs=1e-12)


def test_fedsgd_minimises_the_penalised_loss_under_weight_decay():
    # Minimum of 1/4 * (w - a)^2 + 3/16 * (w - b)^2 + 1/2 * 0.5 * w^2, coordinate by coordinate:
    #   1/2 * (w - a) + 3/8 * (w - b) + 1/2 * w = 0, so w = (a / 2 + 3 b / 8) / (11 / 8).
    path = play(FedSgd(server_rate=0.5), two_clients(weight_decay=0.5), ORIGIN, 80)
    assert path[-1] == pytest.approx((A_BEST / 2 + 3 * B_BEST / 8) / (11 / 8), abs=1e-6)


def test_fedavg_reproduces_two_rounds_worked_by_hand():
    # Two local steps bring A to (1, -2) + (1 - 1/2)^2 * (w - (1, -2)) and B to (3, 1) + (7/8)^2 * (w - (3, 1)).
    # Round 1 from (0, 0): A (0.75, -1.5), B 0.234375 * (3, 1) = (0.703125, 0.234375);
    #   1/4 * A + 3/4 * B = (0.1875 + 0.52734375, -0.375 + 0.17578125) = (0.71484375, -0.19921875).
    # Round 2: A (1 + 0.25 * (0.71484375 - 1), -2 + 0.25 * (-0.19921875 + 2)) = (0.9287109375, -1.5498046875)
    #          B (3 + 0.765625 * (0.71484375 - 3), 1 + 0.765625 * (-0.19921875 - 1))
    #            = (1.25042724609375, 0.08184814453125);
    #   1/4 * A + 3/4 * B = (0.232177734375 + 0.9378204345703125, -0.387451171875 + 0.0613861083984375).
    path = play(FedAvg(), two_clients(a_steps=2, b_steps=2), ORIGIN, 2)
    assert path[0] == pytest.approx([0.71484375, -0.19921875], abs=1e-6)
    assert path[1] == pytest.approx([1.1699981689453125, -0.3260650634765625], abs=1e-6)


def test_fedavg_with_server_momentum_reproduces_two_rounds_worked_by_hand():
    # One local step: updates 1/2 * ((1, -2) - w) and 1/8 * ((3, 1) - w); momentum 1/2, server rate 1/2.
    # Round 1: mean 1/4 * (0.5, -1) + 3/4 * (0.375, 0.125) = (0.40625, -0.15625) = velocity;
    #   weights (0.203125, -0.078125).
    # Round 2: A 1/2 * (0.796875, -1.921875) = (0.3984375, -0.9609375)
    #          B 1/8 * (2.796875, 1.078125) = (0.349609375, 0.134765625);
    #   mean (0.099609375 + 0.26220703125, -0.240234375 + 0.10107421875) = (0.36181640625, -0.13916015625);
    #   velocity (0.203125 + 0.36181640625, -0.078125 - 0.13916015625) = (0.56494140625, -0.21728515625);
    #   weights (0.203125 + 0.282470703125, -0.078125 - 0.108642578125).
    path = play(FedAvg(server_rate=0.5, server_momentum=0.5), two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx([0.203125, -0.078125], abs=1e-6)
    assert path[1] == pytest.approx([0.485595703125, -0.186767578125], abs=1e-6)


def test_fedavg_with_one_full_step_is_fedsgd():
    one_step = play(FedAvg(), two_clients(), ORIGIN, 3)
    assert np.array(one_step) == pytest.approx(np.array(play(FedSgd(server_rate=0.25), two_clients(), ORIGIN, 3)))


@pytest.mark.parametrize("strategy", [FedAvg(server_momentum=0.9), FedAdam()])
def test_a_second_run_does_not_remember_the_first(strategy):
    first = play(strategy, two_clients(), ORIGIN, 3)
    assert np.array_equal(first, play(strategy, two_clients(), ORIGIN, 3))


def test_fedadam_reproduces_two_rounds_worked_by_hand():
    # server_rate 0.1, beta_1 = 1/2, beta_2 = 3/4, tau = 1/2; one local step, so the mean update is
    # 1/8 * ((1, -2) - w) + 3/32 * ((3, 1) - w). v starts at tau^2 = 0.25, m at 0; no bias correction.
    # Round 1: update (0.40625, -0.15625), m (0.203125, -0.078125),
    #   v = 0.75 * 0.25 + 0.25 * update^2 = (0.1875 + 0.041259765625, 0.1875 + 0.006103515625)
    #     = (0.228759765625, 0.193603515625).
    #   w = 0.1 * m / (sqrt(v) + 0.5) = (0.0203125 / 0.97828837, -0.0078125 / 0.94000399) = (0.02076331, -0.00831113).
    # Round 2: update (0.40625 - 0.21875 * w1, -0.15625 - 0.21875 * w2), since 1/8 + 3/32 = 0.21875,
    #     = (0.40170803, -0.15443194);
    #   m = (0.1015625 + 0.20085401, -0.0390625 - 0.07721597) = (0.30241651, -0.11627847);
    #   v = (0.17156982 + 0.25 * 0.16136934, 0.14520264 + 0.25 * 0.02384922) = (0.21191216, 0.15116494);
    #   step (0.030241651 / 0.96033919, -0.011627847 / 0.88879936) = (0.03149059, -0.01308265), added to w.
    strategy = FedAdam(server_rate=0.1, server_momentum=0.5, second_momentum=0.75, tau=0.5)
    path = play(strategy, two_clients(), ORIGIN, 2)
    assert path[0] == pytest.approx([0.0203125 / 0.97828837, -0.0078125 / 0.94000399], abs=1e-7)
    assert path[1] == pytest.approx([0.02076331 + 0.03149059, -0.00831113 - 0.01308265], abs=1e-7)


def test_fedadam_without_memory_moves_every_coordinate_by_its_rate():
    """beta_1 = beta_2 = 0 and a vanishing tau leave update / |update|: sign descent."""
    strategy = FedAdam(server_rate=0.1, server_momentum=0.0, second_momentum=0.0, tau=1e-12)
    assert play(strategy, two_clients(), ORIGIN, 1)[0] == pytest.approx([0.1, -0.1], abs=1e-9)


def test_fedadam_without_memory_and_with_a_huge_tau_is_fedavg():
    """The step is rate * update / (|update| + tau), so rate = tau = 1e9 leaves the update."""
    strategy = FedAdam(server_rate=1e9, server_momentum=0.0, second_momentum=0.0, tau=1e9)
    assert np.array(play(strategy, two_clients(), ORIGIN, 3)) == pytest.approx(
        np.array(play(FedAvg(), two_clients(), ORIGIN, 3)), abs=1e-8
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedAvg(server_rate=0.0), "server_rate must be a finite number above 0"),
        (lambda: FedAvg(server_momentum=1.0), r"server_momentum must be in \[0, 1\), not 1"),
        (lambda: FedSgd(server_rate=-1.0), "server_rate must be a finite number above 0"),
        (lambda: FedAdam(tau=0.0), "tau must be a finite number above 0"),
        (lambda: FedAdam(second_momentum=float("nan")), r"second_momentum must be in \[0, 1\), not nan"),
    ],
)
def test_an_option_that_cannot_work_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_larger_client_weighs_more_in_proportion_to_its_rows():
    mirrored = [client(B_ROWS, 0), client(A_ROWS, 1)]  # the order of clients is no weight
    assert play(FedAvg(), mirrored, ORIGIN, 1)[0] == pytest.approx([0.40625, -0.15625], abs=1e-12)
