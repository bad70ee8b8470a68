"""A release that the ledger's tests make again and again."""

from distill.ledger.entries import store
from distill.ledger.entries.entry import sign_entry, sign_head
from distill.privacy.events import Event

DATASET = "0123456789abcdef0123456789abcdef"
BUNDLE = "ab" * 32
SIZE = Event(name="size", mechanism="laplace", noise_multiplier=100.0, purpose="noisy row count")
REST = (
    Event(name="encode", mechanism="gaussian", noise_multiplier=20.0, blocks=10, round=1),
    Event(name="sgd", mechanism="poisson_gaussian", noise_multiplier=6.0, sampling_rate=0.05, count=200, round=1),
)


def reserve(ledger, key, epsilon=0.5, delta=1e-5, **options):
    """Begin a release."""
    return ledger.reserve(
        epsilon=epsilon, delta=delta, purpose="credit scores", actor="operator", events=[SIZE], key=key, **options
    )


def put(ledger, kind, body, key):
    """Add an entry that is hashed, signed and sealed properly, and that no rule has looked at."""
    after = ledger.entries()[-1]
    entry = sign_entry(kind, body, after=after, actor="x", dataset=DATASET, unit="row", key=key)
    with store.writing(ledger.path) as connection:
        store.append(connection, entry, sign_head(entry, key))
