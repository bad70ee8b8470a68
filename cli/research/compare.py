"""`distill compare`: distillation and the federated baselines on the same rows, and one report of accuracy against bytes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import JsonOption, progress_console, reporting
from cli.shared.progress import progress_bars

if TYPE_CHECKING:
    from rich.console import Group

    from server_train.comparison.compare import Request
    from server_train.comparison.record.results import Comparison
    from server_train.federated.engine.clock import Clock

EPSILON, DELTA = 2.0, 1e-5
INTERRUPTED = "Finished parts are kept: the same command goes on from there."


def compare(
    place: Annotated[
        Path, typer.Argument(help="A table to deal, or a folder that holds one table a client.", metavar="TABLE")
    ],
    schema: Annotated[Path, typer.Option(help="Public schema of all tables.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for the report and all that is made.", metavar="DIR")] = Path(
        "comparison"
    ),
    test: Annotated[Path | None, typer.Option(help="Test rows; else a share is set aside.", metavar="FILE")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share of rows set aside for testing [0.2].")] = None,
    clients: Annotated[int | None, typer.Option(help="Clients that the table is dealt to [5].")] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="iid, dirichlet:ALPHA, quantity:ALPHA, by:COLUMN or a saved FILE.json [iid]."),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Baseline [fedavg]; repeat for more; `all`; or mymodule:MyStrategy.", metavar="NAME"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Of a baseline, as fedprox.mu=0.1 or scaffold.learning_rate=0.01; repeat.", metavar="WORD"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of every baseline.")] = 100,
    participation: Annotated[float, typer.Option(help="Share of clients in a round.")] = 1.0,
    epochs: Annotated[int, typer.Option(help="Local epochs in a round.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Rows a local step; 0: all.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of local steps.")] = 0.1,
    compression: Annotated[
        str, typer.Option(help="Of the baselines' messages: none, float16, int8, topk:0.1.")
    ] = "none",
    tiers: Annotated[str, typer.Option(help="Machines and lines, dealt to clients in turn: high,medium,low.")] = "high",
    dropout: Annotated[
        float | None, typer.Option(help="Chance that a client is lost to a round; else by its tier.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Simulated seconds after which a round ends.")] = None,
    epsilon: Annotated[float, typer.Option(help="Budget of each client.")] = EPSILON,
    delta: Annotated[float, typer.Option(help="Of each client.")] = DELTA,
    private: Annotated[
        bool, typer.Option("--private", help="Run baselines a second time, by DP-SGD under the same budget.")
    ] = False,
    private_rounds: Annotated[int, typer.Option(help="Rounds of those, three steps on all rows in each.")] = 20,
    private_learning_rate: Annotated[
        float | None, typer.Option(help="Of those; else what each strategy works well with.")
    ] = None,
    compress: Annotated[
        list[str] | None,
        typer.Option(help="Size of the bundles: full, default or compact; repeat for more [default, compact]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of split, deal, first weights; not of the noise.", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="Repetitions, with seeds from --seed on.", min=1, max=100)] = 1,
    rehearsal: Annotated[
        int | None, typer.Option(help="Seed of repeatable noise that is NOT PRIVATE.", min=0, metavar="SEED")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do finished parts again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Distil, run federated baselines on the same rows, and write one report; for public or own data only."""
    with reporting(as_json, interrupted=INTERRUPTED) as report:
        from distill.common.compute import single_thread
        from server_train.comparison.compare import Request
        from server_train.comparison.compare import compare as run
        from server_train.comparison.deal.institutions import Budget
        from server_train.comparison.deal.tables import Source
        from server_train.comparison.runs.baselines import Conditions, chosen
        from server_train.comparison.runs.distilled import parse_levels
        from server_train.comparison.runs.private import private_conditions
        from server_train.federated.local.client import LocalSettings
        from server_train.federated.messages.compression import parse_compression

        request = Request(
            source=Source(
                place=place, schema=schema, test=test, test_share=test_share, clients=clients, partition=partition
            ),
            out=out,
            budget=Budget(epsilon=epsilon, delta=delta, rehearsal=rehearsal),
            baselines=chosen(strategy or ["fedavg"], option or []),
            conditions=Conditions(
                rounds=rounds,
                participation=participation,
                local=LocalSettings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
                compression=parse_compression(compression),
                deadline=deadline,
                clock=_clock(tiers, dropout),
            ),
            levels=parse_levels(compress or ["default", "compact"]),
            private=private_conditions(private_rounds, private_learning_rate) if private else None,
            seeds=tuple(range(seed, seed + seeds)),
            fresh=fresh,
        )
        with progress_bars(progress_console(quiet=as_json)) as progress, single_thread():
            found = run(request, progress)
        report(_payload(found, request), _summary(found, out))


def _clock(tiers: str, dropout: float | None) -> "Clock":
    """Tiers from words, all with the same chance to drop out where one is given."""
    import dataclasses

    from server_train.federated.engine.clock import Clock, parse_tiers

    parsed = parse_tiers(tiers)
    if dropout is not None:
        parsed = tuple(dataclasses.replace(tier, drop_out=dropout) for tier in parsed)
    return Clock(tiers=parsed)


def _payload(found: "Comparison", request: "Request") -> dict[str, Any]:
    """The result as one JSON object; every round of every run is in comparison.json."""
    from server_train.comparison.record.summary import lines, reach_lines
    from server_train.comparison.report.outputs import HTML, JSON

    return {
        "report": str(request.out / HTML),
        "json": str(request.out / JSON),
        "table": found.table,
        "parameters": found.parameters,
        "runs": [
            {
                "run": line.name,
                "kind": line.kind,
                "epsilon": line.epsilon if line.epsilon is not None else "none",
                "roc_auc": line.roc_auc.mean,
                "roc_auc_spread": line.roc_auc.spread,
                "accuracy": line.accuracy.mean,
                "rounds": line.rounds,
                "bytes_up_per_client": line.up,
                "bytes_down_per_client": line.down,
                "simulated_seconds": line.seconds,
            }
            for line in lines(found)
        ],
        "reach": [
            {
                "baseline": r.baseline,
                "distilled": r.distilled,
                "roc_auc": r.goal,
                "reached": r.words if r.round is None else r.round,
                "bytes_per_client": r.client_bytes,
                "times_the_distilled_bytes": r.ratio,
                "times_the_distilled_bytes_up": r.up_ratio,
            }
            for r in reach_lines(found)
        ],
        "rehearsal": request.budget.rehearsal is not None,
        "notes": list(found.notes),
    }


def _summary(found: "Comparison", out: Path) -> "Group":
    """What a person wants to see: one table, and where the report is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from server_train.comparison.record.summary import lines, reach_lines
    from server_train.comparison.report.outputs import HTML
    from server_train.reports.formatting import readable_bytes

    first = next(line for line in lines(found) if line.kind == "distilled")
    reaches = {r.baseline: r for r in reach_lines(found) if r.distilled == first.name}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("run", no_wrap=True)
    for name in ("epsilon", "AUC", "rounds", "bytes\na client", "reached\nin round", "reached\nat bytes"):
        table.add_column(name, justify="right")
    for line in lines(found):
        reach = reaches.get(line.name)
        when = "" if reach is None else "never" if reach.round is None else reach.words
        spent = readable_bytes(reach.client_bytes) if reach and reach.client_bytes is not None else ""
        travels = line.kind in ("distilled", "federated")
        table.add_row(
            line.name,
            "none" if line.epsilon is None else f"{line.epsilon:.2f}",
            f"{line.roc_auc.mean:.4f}",
            f"{line.rounds:g}" if travels else "",
            readable_bytes(line.client_bytes) if travels else "",
            when,
            spent,
        )
    words = [
        f"reached: the first round whose AUC on the test rows is at least that of {first.name}, {first.roc_auc.mean:.4f}",
        *(f"note: {note}" for note in found.notes),
        f"report: {out / HTML}",
    ]
    return Group(table, *map(Text, words))
