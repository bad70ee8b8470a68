"""A client's answers to the server, and the words both sides have for each other; no network."""

import numpy as np
import pytest

from distill import __version__
from distill.errors import ConfigError, DataError
from server_train.federated.institution.participant import Answer, Participant
from server_train.federated.local.client import LocalSettings
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import Message, decode, encode
from server_train.federated.messages.protocol import LONGEST_TEXT, Hello, Kind, Terms, failure, reason_in
from server_train.federated.messages.sketches import answer, check_sketch, public_curves
from server_train.models.features import Encoder
from tests.fakes.federations import NARROW, SCHEMA, bank

CURVES = encode(answer(public_curves(SCHEMA)))
ENCODER = Encoder(SCHEMA, public_curves(SCHEMA))
MODEL = Mlp([ENCODER.n_dense + ENCODER.n_codes, 4, 2])
PAYLOAD = encode(Message({"weights": MODEL.initial(np.random.default_rng(0))}))


def participant(**changes: object) -> Participant:
    return Participant(1, SCHEMA, bank(60, 1), **changes)


def terms(strategy: str = "fedavg", learning_rate: float = 0.1) -> list[bytes]:
    local = LocalSettings(batch_size=16, learning_rate=learning_rate)
    return [Terms(strategy=strategy, hidden=(4,), local=local).encode(), CURVES]


def reason(found: Answer) -> str:
    assert found.kind == Kind.FAILED
    assert found.work == 0
    return reason_in(found.body)


def test_a_client_that_knows_the_terms_trains_on_its_rows():
    one = participant()
    assert one.handle(Kind.TERMS, terms()) == Answer(Kind.REPLY)
    found = one.handle(Kind.TRAIN, [PAYLOAD])
    assert found.kind == Kind.REPLY
    assert found.work == 60
    reply = decode(found.body)
    assert reply.tensors["update"].shape == (MODEL.size,)
    assert reply.numbers["rows"] == 60
    assert one.trainings == 1
    assert one.down == sum(map(len, terms())) + len(PAYLOAD)
    assert one.up == len(found.body)


def test_terms_are_taken_as_they_were_given():
    given = Terms(
        strategy="fedprox",
        options={"mu": "0.5"},
        hidden=(8,),
        local=LocalSettings(epochs=3, batch_size=7, learning_rate=0.2),
        compression="topk:0.1",
        seed=5,
    )
    assert Terms.decode(given.encode()) == given


def test_new_terms_forget_what_the_client_remembered():
    one = participant()
    one.handle(Kind.TERMS, terms())
    first = one.handle(Kind.TRAIN, [PAYLOAD])
    assert one.handle(Kind.TRAIN, [PAYLOAD]).body != first.body  # the order of rows has moved on
    one.handle(Kind.TERMS, terms())
    assert one.handle(Kind.TRAIN, [PAYLOAD]).body == first.body


def test_training_before_the_terms_is_refused():
    assert "before it knew the terms" in reason(participant().handle(Kind.TRAIN, [PAYLOAD]))


def test_a_client_sends_no_sketch_unless_it_may():
    assert "not started with --allow-sketch" in reason(participant().handle(Kind.SKETCH, []))
    found = participant(may_sketch=True).handle(Kind.SKETCH, [])
    assert found.kind == Kind.REPLY
    check_sketch(SCHEMA, decode(found.body))


def test_a_client_loads_no_module_that_it_was_not_started_with():
    foreign = "somebody:Strategy"
    assert f"does not load strategy '{foreign}'" in reason(participant().handle(Kind.TERMS, terms(foreign)))
    own = "server_train.federated.strategies.fedavg:FedAvg"
    assert participant(own_strategy=own).handle(Kind.TERMS, terms(own)) == Answer(Kind.REPLY)


def test_a_refused_client_knows_why():
    one = participant()
    assert one.handle(Kind.REFUSED, [b"there is a client 1 already"]) == Answer(Kind.REPLY)
    assert one.refusal == "there is a client 1 already"


@pytest.mark.parametrize(
    "message", [("distill.other", []), (Kind.TRAIN, []), (Kind.TERMS, [b"{}"]), (Kind.SKETCH, [b""])]
)
def test_a_message_of_another_form_is_answered_with_a_failure(message):
    assert "unknown kind" in reason(participant().handle(*message))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "terms cannot be read"),
        (b'{"strategy": "fedavg", "more": 1}', "terms cannot be read"),
        (b'{"strategy": "fedavg", "hidden": [0]}', "impossible widths"),
        (b'{"strategy": "fedavg", "local": {"learning_rate": -1}}', "learning_rate"),
        (b'{"strategy": "none"}', "does not load"),
        (b'{"strategy": "fedavg", "options": {"mu": "1"}}', "no option 'mu'"),
        (b'{"strategy": "fedavg", "compression": "zip"}', "no compression"),
    ],
)
def test_terms_that_cannot_be_are_refused_and_the_client_goes_on(data, words):
    one = participant()
    assert words in reason(one.handle(Kind.TERMS, [data, CURVES]))
    assert one.handle(Kind.TERMS, terms()) == Answer(Kind.REPLY)


def test_training_that_fails_is_told_in_words():
    one = participant()
    one.handle(Kind.TERMS, terms(learning_rate=1e30))
    assert "training diverged" in reason(one.handle(Kind.TRAIN, [PAYLOAD]))
    assert "cannot be read" in reason(one.handle(Kind.TRAIN, [b"not a message"]))


def test_an_unexpected_error_tells_its_type_and_no_value():
    assert failure(KeyError("Jane Doe")) == b"unexpected KeyError at the client; its message is withheld"
    assert failure(DataError("column 'age' is missing")) == b"column 'age' is missing"


def test_a_reason_from_the_other_side_is_one_printable_line_of_limited_length():
    assert reason_in(b"two\nlines\x1b[31m \xff") == "two lines[31m \ufffd"
    assert len(reason_in(b"x" * 10_000)) == LONGEST_TEXT
    assert reason_in(b"") == "no reason was given"


def test_a_client_without_rows_is_refused():
    with pytest.raises(DataError, match="client 0 has no rows"):
        Participant(0, SCHEMA, bank(5, 0).iloc[:0])


def test_a_fitting_hello_meets_no_objection():
    hello = Hello.from_properties(participant().hello.as_properties())
    assert hello == Hello(1, SCHEMA.digest(), __version__)
    assert hello.objection(clients=2, schema=SCHEMA.digest()) is None


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"number": 2}, "numbers 0 to 1"),
        ({"number": -1}, "numbers 0 to 1"),
        ({"number": True}, "numbers 0 to 1"),
        ({"schema": NARROW.digest()}, "schema is not the server's"),
        ({"version": "0.0.1"}, "runs distill 0.0.1, the server"),
    ],
)
def test_a_hello_that_does_not_fit_is_objected_to(properties, words):
    hello = Hello.from_properties(Hello(0, SCHEMA.digest()).as_properties() | properties)
    assert words in str(hello.objection(clients=2, schema=SCHEMA.digest()))


def test_own_settings_must_work():
    with pytest.raises(ConfigError, match="learning_rate"):
        Terms(strategy="fedavg", local={"learning_rate": 0.0})
