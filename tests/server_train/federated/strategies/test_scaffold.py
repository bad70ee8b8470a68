"""SCAFFOLD on the case worked by hand in `federated_fakes`, and what defines it: control variates that add up."""

import numpy as np
import pytest

from distill.errors import DataError
from server_train.federated.messages.codec import Message
from server_train.federated.strategies.fedavg import FedAvg
from server_train.federated.strategies.scaffold import Scaffold
from tests.fakes.federations import A_BEST, A_ROWS, B_BEST, answer, client, play, two_clients

ORIGIN = np.zeros(2)


def test_scaffold_reproduces_two_rounds_worked_by_hand():
    # Round 1, all controls zero: two local steps as in FedAvg, A (0.75, -1.5), B (0.703125, 0.234375);
    #   weights (0.71484375, -0.19921875). Controls: way back over steps * rate = 1/2, so
    #   A -2 * (0.75, -1.5) = (-1.5, 3), B (-1.40625, -0.46875), server 1/4 * A + 3/4 * B = (-1.4296875, 0.3984375).
    # Round 2: every gradient of A is shifted by server - A = (0.0703125, -2.6015625). A step takes A's distance d to
    #   (1, -2) to d / 2 - shift / 4, two steps to d / 4 - 3/8 * shift:
    #   1/4 * (-0.28515625, 1.80078125) - (0.0263671875, -0.9755859375) = (-0.09765625, 1.42578125),
    #   A = (0.90234375, -0.57421875).
    #   B is shifted by (-0.0234375, 0.8671875); d to (3, 1) becomes 49/64 * d - 15/32 * shift:
    #   49/64 * (-2.28515625, -1.19921875) - (-0.010986328125, 0.406494140625) = (-1.73858642578125, -1.32464599609375),
    #   B = (1.26141357421875, -0.32464599609375).
    #   1/4 * A + 3/4 * B = (0.2255859375 + 0.9460601806640625, -0.1435546875 - 0.2434844970703125).
    # Controls: own - server + way back * 2 = way back * 2 - shift.
    #   A 2 * (-0.1875, 0.375) - (0.0703125, -2.6015625) = (-0.4453125, 3.3515625)
    #   B 2 * (-0.54656982421875, 0.12542724609375) - (-0.0234375, 0.8671875) = (-1.0697021484375, -0.6163330078125)
    #   server 1/4 * A + 3/4 * B = (-0.111328125 - 0.802276611328125, 0.837890625 - 0.462249755859375).
    strategy = Scaffold()
    path = play(strategy, two_clients(a_steps=2, b_steps=2), ORIGIN, 2)
    assert path[0] == pytest.approx([0.71484375, -0.19921875], abs=1e-6)
    assert path[1] == pytest.approx([1.1716461181640625, -0.3870391845703125], abs=1e-6)
    assert strategy.control == pytest.approx([-0.913604736328125, 0.375640869140625], abs=1e-6)


def test_scaffold_with_zero_controls_is_fedavg_in_its_first_round_and_doubles_the_bytes():
    scaffold, fedavg = Scaffold(), FedAvg()
    first = play(scaffold, two_clients(a_steps=1, b_steps=3), ORIGIN, 1)
    assert np.array_equal(first, play(fedavg, two_clients(a_steps=1, b_steps=3), ORIGIN, 1))
    one = client(A_ROWS)
    for message, plain in (
        (scaffold.broadcast(0), fedavg.broadcast(0)),
        (answer(scaffold, one, 0), answer(fedavg, one, 0)),
    ):
        assert sum(t.nbytes for t in message.tensors.values()) == 2 * sum(t.nbytes for t in plain.tensors.values())


def test_scaffold_with_one_local_step_is_fedavg_while_every_gradient_is_taken_at_the_server_weights():
    """Shifts of one step average to server - mean of controls = 0, so the controls change nothing."""
    scaffold = play(Scaffold(), two_clients(), ORIGIN, 4)
    assert np.array(scaffold) == pytest.approx(np.array(play(FedAvg(), two_clients(), ORIGIN, 4)), abs=1e-12)


@pytest.mark.parametrize(
    ("by_rows", "best"),
    [(True, (A_BEST / 2 + 3 * B_BEST / 8) / (7 / 8)), (False, (4 * A_BEST + B_BEST) / 5)],
)
def test_scaffold_finds_the_common_minimum_however_unequal_the_work(by_rows, best):
    """Where the weighted mean of 2 * (w - a) and (w - b) / 2 is zero; FedAvg with unequal steps stops elsewhere."""
    work = {"a_steps": 3, "b_steps": 8, "learning_rate": 0.1}
    assert play(Scaffold(by_rows=by_rows), two_clients(**work), ORIGIN, 300)[-1] == pytest.approx(best, abs=1e-6)
    assert np.abs(play(FedAvg(), two_clients(**work), ORIGIN, 300)[-1] - best).max() > 0.05


def settled(strategy, clients):
    """Each client's control as the server's next message settles it."""
    for number, one in enumerate(clients):
        strategy.train(one, strategy.broadcast(number))
    return [one.memory["control"] for one in clients]


def test_the_server_control_is_the_mean_of_all_controls_also_when_clients_sit_out_or_replies_are_lost():
    strategy = Scaffold(by_rows=False)
    clients = [*two_clients(a_steps=2, b_steps=3), client(A_ROWS, 2, steps=5)]
    strategy.start(ORIGIN, len(clients))
    for asked, lost in [((0, 1, 2), ()), ((0, 1), (1,)), ((1, 2), ()), ((0, 1, 2), (0, 2)), ((1,), ())]:
        replies = {number: answer(strategy, clients[number], number) for number in asked}
        strategy.aggregate({number: reply for number, reply in replies.items() if number not in lost})
    controls = settled(strategy, clients)
    assert strategy.control == pytest.approx(np.mean(controls, axis=0), abs=1e-12)
    assert np.abs(controls[0] - controls[1]).max() > 0.1


def test_the_control_moves_by_the_share_of_clients_that_took_part():
    strategy = Scaffold()
    strategy.start(ORIGIN, 4)
    change = np.array([1.0, 3.0])
    reply = Message({"update": ORIGIN, "control": change}, {"rows": 5})
    strategy.aggregate({2: reply})
    assert strategy.control == pytest.approx(change / 4)


def test_a_control_is_the_mean_gradient_with_momentum_too():
    """At a tiny rate every gradient is the one at the start: 2 * (0 - a) for A."""
    one = client(A_ROWS, steps=10, learning_rate=1e-7, momentum=0.9)
    strategy = Scaffold()
    play(strategy, [one], ORIGIN, 1)
    assert strategy.control == pytest.approx(-2 * A_BEST, rel=1e-5)


def test_a_client_that_lost_its_memory_starts_again_from_zero():
    clients, strategy = two_clients(a_steps=2, b_steps=2), Scaffold()
    play(strategy, clients, ORIGIN, 2)
    clients[0].memory.clear()
    answer(strategy, clients[0], 0)
    assert np.array_equal(clients[0].memory["control"], ORIGIN)


def test_a_new_run_forgets_the_controls_of_the_last_one():
    clients, strategy = two_clients(a_steps=2, b_steps=2), Scaffold()
    first = play(strategy, clients, ORIGIN, 3)
    assert np.array_equal(first, play(strategy, clients, ORIGIN, 3))


@pytest.mark.parametrize("control", [None, np.zeros(3), np.zeros((2, 1)), np.zeros(2, dtype=np.int64)])
def test_a_reply_without_a_usable_control_is_refused(control):
    strategy = Scaffold()
    strategy.start(ORIGIN, 1)
    tensors = {"update": ORIGIN} if control is None else {"update": ORIGIN, "control": control}
    with pytest.raises(DataError, match="a change of control must hold 2 numbers"):
        strategy.accept(Message(tensors, {"rows": 1}))
