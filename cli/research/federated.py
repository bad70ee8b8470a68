"""`distill federated`: a conventional federated run on several machines, to compare with; one server, and one client each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import JsonOption, progress_console, reporting

if TYPE_CHECKING:
    from rich.console import Group

    from server_train.federated.engine.run import OnRound
    from server_train.federated.flower.serve import Served

app = typer.Typer(
    help="Federated training over a network (needs the extra `flower`), without privacy: to compare with.",
    no_args_is_help=True,
)
SchemaOption = Annotated[Path, typer.Option(help="Public schema, the same everywhere.", metavar="FILE")]


@app.command()
def serve(
    clients: Annotated[int, typer.Option(help="How many clients there are.", min=1, max=10_000)],
    schema: SchemaOption,
    test: Annotated[Path, typer.Option(help="Rows to judge the global model on.", metavar="FILE")],
    address: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for other machines.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    out: Annotated[Path, typer.Option(help="Folder for model and record.", metavar="DIR")] = Path("federated"),
    strategy: Annotated[str, typer.Option(help="A published one, or mymodule:MyStrategy.", metavar="NAME")] = "fedavg",
    option: Annotated[
        list[str] | None, typer.Option(help="Of the strategy, as mu=0.1; repeat for more.", metavar="WORD")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 20,
    participation: Annotated[float, typer.Option(help="Share of clients in a round.")] = 1.0,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a round ends, whoever is missing.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Local epochs in a round.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Rows a local step; 0: all.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of local steps.")] = 0.1,
    compression: Annotated[str, typer.Option(help="Of messages: none, float16, int8, topk:0.1.")] = "none",
    scaling: Annotated[
        str, typer.Option(help="Of numbers: `bounds` of the schema, or `sketch`: quantiles of the clients' rows.")
    ] = "bounds",
    seed: Annotated[int, typer.Option(help="Of first weights, participants and order of rows.", min=0)] = 0,
    wait: Annotated[float, typer.Option(help="Seconds for all clients to join.")] = 300.0,
    certificate: Annotated[Path | None, typer.Option(help="PEM of this server, for TLS.", metavar="FILE")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM of the certificate's key.", metavar="FILE")] = None,
    wire_port: Annotated[
        int | None, typer.Option(help="Count bytes on the wire: client I joins at this port + I.", metavar="PORT")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait for the clients, run all rounds, write the global model (not private), rounds.csv and federated.json."""
    with reporting(as_json, interrupted="The clients were sent home; no model was written.") as report:
        from server_train.federated.flower.serve import Service, client_bytes
        from server_train.federated.flower.serve import serve as run
        from server_train.federated.local.client import LocalSettings
        from server_train.federated.messages.protocol import Terms

        service = Service(
            address=address,
            clients=clients,
            schema=schema,
            test=test,
            out=out,
            terms=Terms(
                strategy=strategy,
                options=_options(option or []),
                local=LocalSettings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
                compression=compression,
                seed=seed,
            ),
            rounds=rounds,
            participation=participation,
            deadline=deadline,
            scaling=scaling,
            wait=wait,
            certificate=certificate,
            key=key,
            wire_port=wire_port,
        )
        if not as_json:
            report.note(f"waiting for {clients} clients at {address}")
        with _bar(rounds, quiet=as_json) as (on_round, note):
            served = run(service, note=note, on_round=on_round)
        last = served.record[-1]
        payload = {"folder": str(out), "rounds": last.number, "seconds": last.seconds, **last.metrics}
        report({**payload, "clients": client_bytes(served)}, _summary(served))


@app.command()
def join(
    number: Annotated[int, typer.Option(help="This client's own, from 0.", min=0)],
    data: Annotated[Path, typer.Option(help="Its rows; they stay here.", metavar="FILE")],
    schema: SchemaOption,
    address: Annotated[str, typer.Option(help="Of the server.", metavar="HOST:PORT")] = "127.0.0.1:8080",
    strategy: Annotated[
        str | None, typer.Option(help="mymodule:MyStrategy that the server may name.", metavar="NAME")
    ] = None,
    allow_sketch: Annotated[
        bool, typer.Option("--allow-sketch", help="Let the server have quantiles of the rows, extremes included.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds for the server to appear.")] = 60.0,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM of who signed the server's certificate, for TLS.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train on own rows as the server asks, until it ends the run; updates carry no privacy guarantee."""
    with reporting(as_json, interrupted="The server goes on without this client.") as report:
        from distill.common import checks
        from distill.data.schema import load_schema
        from distill.data.tables import read_table
        from server_train.federated.flower.addresses import read_pem
        from server_train.federated.flower.client import join as run
        from server_train.federated.institution.participant import Participant

        checks.positive(wait=wait)
        root = None if certificate is None else read_pem(certificate)
        shared = load_schema(schema)
        shared.require_confirmed()
        shared.require_classes("federated training")
        frame = read_table(data, shared)
        participant = Participant(number, shared, frame, may_sketch=allow_sketch, own_strategy=strategy)
        joined = run(participant, address, root_certificate=root, wait=wait)
        report(
            {"client": number, **vars(joined)},
            f"client {number}: {joined.trainings} trainings, {joined.down:,} bytes down, {joined.up:,} bytes up",
        )


def _options(words: list[str]) -> dict[str, str]:
    """`mu=0.1` and the like. Raises ConfigError."""
    from distill.errors import ConfigError

    wrong = [word for word in words if "=" not in word.strip("=")]
    if wrong:
        raise ConfigError(f"option {wrong[0]!r} must be written NAME=VALUE, as in mu=0.1.")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


@contextmanager
def _bar(rounds: int, *, quiet: bool) -> "Iterator[tuple[OnRound, Callable[[str], None]]]":
    """A progress bar of the rounds, and a way to tell something above it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from server_train.federated.engine.run import Round

    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console(quiet=quiet)) as bars:
        task = bars.add_task("rounds", total=rounds)

        def on_round(one: Round) -> None:
            auc = one.metrics.get("roc_auc")
            lost = f", {len(one.lost)} lost" if one.lost else ""
            bars.update(task, completed=one.number, description=f"AUC {auc:.4f}{lost}" if auc is not None else "rounds")

        yield on_round, lambda text: bars.console.print(text, markup=False)


def _summary(served: "Served") -> "Group":
    """What a person wants to see: bytes of each client, and what came of it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from server_train.federated.flower.serve import client_bytes
    from server_train.reports.formatting import readable_bytes

    lines: list[dict[str, Any]] = client_bytes(served)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in lines[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for line in lines:
        table.add_row(str(line["client"]), *(readable_bytes(line[name]) for name in line if name != "client"))
    last = served.record[-1]
    lost = sum(len(one.lost) for one in served.record)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in last.metrics.items())
    told = [f"{last.number} rounds in {last.seconds:.1f} s; {figures}"]
    told += [f"{lost} exchanges were lost; federated.json has the reasons"] if lost else []
    told += [f"model: {served.folder} (NOT PRIVATE: nothing bounds what its weights tell of a row)"]
    return Group(table, *(Text(line) for line in told))
