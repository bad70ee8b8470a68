"""Local training does what its settings say, and a client that cannot train says so."""

import numpy as np
import pytest

from distill.errors import ConfigError, DataError
from server_train.federated.local.client import Client, LocalSettings
from server_train.federated.local.mlp import Mlp
from tests.fakes.federations import A_ROWS, B_ROWS, blobs, client

ORIGIN = np.zeros(2)


def test_a_client_without_rows_is_refused():
    with pytest.raises(DataError, match=r"client 3 has no rows\. Leave it out"):
        client(([], []), 3)


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (128, {"epochs": 1, "batch_size": 64}, 2),
        (129, {"epochs": 1, "batch_size": 64}, 3),
        (129, {"epochs": 4, "batch_size": 64}, 12),
        (10, {"epochs": 3, "batch_size": 64}, 3),
        (500, {"epochs": 3, "batch_size": 0}, 3),
        (500, {"epochs": 3, "steps": 7}, 7),
    ],
)
def test_steps_follow_from_rows_and_settings(rows, settings, steps):
    assert LocalSettings(**settings).steps_for(rows) == steps


def test_training_leaves_the_start_alone_and_counts_its_steps_and_work():
    one, start = client(B_ROWS, steps=5, batch_size=4), np.zeros(2)
    run = one.train(start)
    assert run.steps == 5
    assert np.array_equal(start, ORIGIN)
    assert one.work == 4 + 2 + 4 + 2 + 4  # batches of six rows by four


def test_every_epoch_sees_every_row_once_in_a_new_order():
    x = np.arange(10.0)[:, None] * [1.0, 0.0]
    one = client((x, np.zeros(10)), epochs=3, batch_size=4, learning_rate=1e-9)
    one.train(ORIGIN)
    seen = [batch[:, 0] for batch in one.model.seen]
    epochs = [np.concatenate(seen[i : i + 3]) for i in (0, 3, 6)]
    assert [len(batch) for batch in seen] == [4, 4, 2] * 3
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_momentum_is_the_heavy_ball_worked_by_hand():
    # A's gradient is 2 * (w - (1, -2)); step 1/4, momentum 1/2.
    # velocity (-2, 4), w (0.5, -1); gradient (-1, 2), velocity (-1, 2) + (-1, 2) = (-2, 4), w (1, -2);
    # gradient (0, 0), velocity (-1, 2), w (1.25, -2.5).
    one = client(A_ROWS, steps=3, momentum=0.5)
    assert one.train(ORIGIN).weights == pytest.approx([1.25, -2.5])
    assert one.train(ORIGIN).weights == pytest.approx([1.25, -2.5])  # no velocity is left over


def test_weight_decay_adds_its_share_of_the_weights():
    # From (2, 2): gradient 2 * (1, 4) + 0.5 * (2, 2) = (3, 9), a quarter step against it.
    one = client(A_ROWS, steps=1, weight_decay=0.5)
    assert one.train(np.array([2.0, 2.0])).weights == pytest.approx([1.25, -0.25])


def test_a_correction_is_added_to_every_gradient():
    # (1, 0) on top: gradients (-1, 4) at (0, 0), then 2 * (0.25 - 1) + 1 = -0.5 and 2 * (-1 + 2) = 2.
    run = client(A_ROWS, steps=2).train(ORIGIN, correction=lambda weights: np.array([1.0, 0.0]))
    assert run.weights == pytest.approx([0.375, -1.5])


def test_loss_and_gradient_are_means_over_all_rows():
    one = client(B_ROWS)
    assert one.loss(ORIGIN) == pytest.approx(2.5)  # (9 + 1) / 4
    assert one.gradient(ORIGIN) == pytest.approx([-1.5, -0.5])
    assert one.work == 2 + 6  # a forward pass is a third


def test_training_that_diverges_says_how_to_mend_it():
    with pytest.raises(DataError, match=r"client 4: training diverged .*\. Lower the learning rate"):
        client(A_ROWS, 4, learning_rate=1e6, steps=200).train(ORIGIN)


def test_a_network_that_diverges_says_so_too():
    model = Mlp([10, 8, 2])
    one = Client(0, *blobs(200, 0), model, LocalSettings(learning_rate=1e12, epochs=9), np.random.default_rng(0))
    with pytest.raises(DataError, match="training diverged"):
        one.train(model.initial(np.random.default_rng(0)))


def test_a_client_with_one_class_trains():
    x, y = blobs(300, 0, positives=0.0)
    model = Mlp([10, 8, 2])
    one = Client(0, x, y, model, LocalSettings(epochs=5), np.random.default_rng(0))
    start = model.initial(np.random.default_rng(0))
    trained = one.train(start).weights
    assert one.loss(trained) < 0.5 * one.loss(start)
    assert model.probabilities(trained, x)[:, 0].mean() > 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"epochs": 0}, "epochs must be a finite number above 0"),
        ({"steps": -1}, "steps, batch_size and weight_decay must be at least 0"),
        ({"batch_size": -1}, "steps, batch_size and weight_decay must be at least 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LocalSettings(**settings)
