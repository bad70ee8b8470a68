"""A client on Flower: joins a server, answers until it is dismissed, and says what passed."""

from dataclasses import dataclass

from distill.errors import ConfigError
from server_train.federated.flower.addresses import parse_address, wait_for
from server_train.federated.flower.library import (
    Client,
    Code,
    FitIns,
    FitRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    RpcError,
    Status,
    start_client,
)
from server_train.federated.institution.participant import Participant

WAIT = 60.0  # seconds for a server to appear
_FINE = Status(Code.OK, "")


class FlowerClient(Client):
    """A participant in Flower's words."""

    def __init__(self, participant: Participant) -> None:
        """Answers are the participant's."""
        self._participant = participant

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Say hello."""
        return GetPropertiesRes(_FINE, self._participant.hello.as_properties())

    def fit(self, ins: FitIns) -> FitRes:
        """Answer one message."""
        found = self._participant.handle(ins.parameters.tensor_type, ins.parameters.tensors)
        return FitRes(_FINE, Parameters([found.body], found.kind), num_examples=found.work, metrics={})


@dataclass(frozen=True)
class Joined:
    """What passed between a client and its server.

    Attributes:
        trainings: Training messages answered.
        down, up: Payload bytes from and to the server, set-up included.
    """

    trainings: int
    down: int
    up: int


def join(
    participant: Participant, address: str, *, root_certificate: bytes | None = None, wait: float = WAIT
) -> Joined:
    """Take part until the server ends the run.

    Args:
        participant: Who.
        address: Of the server, host:port.
        root_certificate: PEM of who signed the server's certificate; None: the connection is not encrypted.
        wait: Seconds for the server to appear.

    Raises:
        ConfigError: the server is not there, refuses the client, or the connection breaks.
    """
    host, port = parse_address(address)
    wait_for(host, port, wait)
    try:
        start_client(
            server_address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            client=FlowerClient(participant),
            root_certificates=root_certificate,
            insecure=root_certificate is None,
        )
    except RpcError as error:
        raise ConfigError(_broken(participant, address, error)) from None
    if participant.refusal is not None:
        raise ConfigError(f"the server at {address} refuses client {participant.number}: {participant.refusal}")
    return Joined(participant.trainings, participant.down, participant.up)


def _broken(participant: Participant, address: str, error: RpcError) -> str:
    """What to do about a connection that broke."""
    code = getattr(error, "code", lambda: None)()
    why = f"({code.name})" if code is not None else ""
    if not participant.down:
        return (
            f"no conversation with the server at {address} {why}. "
            "Either both sides use a certificate or neither does; check also that its name is the certificate's."
        )
    return (
        f"the connection to the server at {address} broke {why} after {participant.trainings} trainings. "
        "While the server runs, the same command joins again."
    )
