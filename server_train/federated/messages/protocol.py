"""What server and client of a Flower run say to each other beside training, and in which form; Flower only carries it.

Every message is a kind and a few byte strings. The server asks, the client answers with REPLY or FAILED:

    (hello)   nothing                       -> number, schema digest and version of the client, as Flower's properties
    SKETCH    nothing                       -> REPLY with a sketch of its rows (see `sketches`)
    TERMS     the terms as JSON, the curves -> REPLY without content: the client is ready
    TRAIN     a message (see `messages`)    -> REPLY with a message
    REFUSED   the reason                    -> REPLY without content: the client leaves

FAILED holds a text for the server's log. It never quotes a row: of an unexpected error only the type is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill import __version__
from distill.errors import DataError, DistillError
from server_train.federated.local.client import LocalSettings

LONGEST_TEXT = 500  # characters of a reason that are believed
Scalar = bool | bytes | float | int | str


class Kind(StrEnum):
    """Kinds of messages."""

    SKETCH = "distill.sketch"
    TERMS = "distill.terms"
    TRAIN = "distill.train"
    REFUSED = "distill.refused"
    REPLY = "distill.reply"
    FAILED = "distill.failed"


@dataclass(frozen=True)
class Hello:
    """Who a client says it is.

    Attributes:
        number: Its place among the clients, from 0.
        schema: Digest of its schema.
        version: Of this software.
    """

    number: int
    schema: str
    version: str = __version__

    def as_properties(self) -> dict[str, Scalar]:
        """As Flower carries it."""
        return dict(vars(self))

    @classmethod
    def from_properties(cls, properties: Mapping[str, Scalar]) -> "Hello":
        """From what a client sent; whatever is missing or odd fits nothing."""
        number, schema, version = (properties.get(name) for name in ("number", "schema", "version"))
        return cls(number if type(number) is int else -1, str(schema)[:64], str(version)[:32])

    def objection(self, *, clients: int, schema: str) -> str | None:
        """Why a server of `clients` clients with this schema digest must refuse it, or nothing."""
        if self.version != __version__:
            return f"it runs distill {self.version}, the server {__version__}; install the same version on both."
        if self.schema != schema:
            return (
                f"its schema is not the server's (digest {self.schema[:12]} against {schema[:12]}); "
                "give every client the server's schema file."
            )
        if not 0 <= self.number < clients:
            return f"there is no client {self.number}: the server expects numbers 0 to {clients - 1}."
        return None


class Terms(BaseModel):
    """What all clients need to know before the first round.

    Attributes:
        strategy: Its name, as `registry.make_strategy` takes it.
        options: Its options, as words.
        hidden: Widths of the network's hidden layers.
        local: How clients train.
        compression: Of their uploads, as words.
        seed: Of the order of their rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    options: dict[str, str] = {}
    hidden: tuple[int, ...] = Field(default=(64, 32), max_length=16)
    local: LocalSettings = Field(default_factory=lambda: LocalSettings(learning_rate=0.1))
    compression: str = "none"
    seed: int = Field(default=0, ge=0)

    def encode(self) -> bytes:
        """As it travels."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> "Terms":
        """From what the server sent. Raises DataError."""
        try:
            terms = cls.model_validate_json(data)
        except ValidationError:
            raise DataError("the server's terms cannot be read") from None
        if not all(0 < width <= 65_536 for width in terms.hidden):
            raise DataError("the server's terms name layers of impossible widths")
        return terms


def failure(error: Exception) -> bytes:
    """The text of a FAILED message."""
    if isinstance(error, DistillError):
        return str(error)[:LONGEST_TEXT].encode()
    return f"unexpected {type(error).__name__} at the client; its message is withheld".encode()


def reason_in(data: bytes) -> str:
    """The text of a FAILED or REFUSED message from the other side, on one line and not too long."""
    text = " ".join(data[: 4 * LONGEST_TEXT].decode(errors="replace").split())
    return "".join(c for c in text if c.isprintable())[:LONGEST_TEXT] or "no reason was given"
