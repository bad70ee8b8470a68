"""The grid's numbers: results.csv with every run, rounds.csv with every round, and results.md for people.

In results.csv each repetition of a method has a line of its own, and so has each setting that could not be run, with the
reason in `note`. results.md shows means over repetitions, with standard deviations where there are several.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import grid

from distill.common import files
from server_train.comparison.record.summary import Figure, Line, ReachLine
from server_train.comparison.report.figures import readable_ratio
from server_train.reports.formatting import readable_bytes

CSV, ROUNDS, MARKDOWN = "results.csv", "rounds.csv", "results.md"
SETTING = ("table", "clients", "split")
HEAD = (
    *SETTING,
    "seed",
    "method",
    "kind",
    "epsilon",
    "delta",
    "roc_auc",
    "accuracy",
    "log_loss",
    "commonest_class",
    "best_roc_auc",
    "best_round",
    "rounds",
    "bytes_up_per_client",
    "bytes_down_per_client",
    "bytes_per_client",
    "simulated_seconds",
    "clients_taking_part",
    "reach_round",
    "reach_bytes_per_client",
    "reach_ratio",
    "reach_compact_round",
    "reach_compact_bytes_per_client",
    "reach_compact_ratio",
    "note",
)
ROUNDS_HEAD = (*SETTING, "seed", "method", "round", "bytes_per_client", "roc_auc", "accuracy", "log_loss")

Row = Sequence[object]


def write_all(outcomes: Sequence[grid.Outcome], out: Path) -> None:
    """All tables."""
    files.write_whole(out / CSV, csv_bytes(HEAD, result_rows(outcomes)))
    files.write_whole(out / ROUNDS, csv_bytes(ROUNDS_HEAD, round_rows(outcomes)))
    files.write_whole(out / MARKDOWN, markdown(outcomes).encode())


def csv_bytes(head: Row, rows: Iterable[Row]) -> bytes:
    """A CSV file; what there is not is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue().encode()


def result_rows(outcomes: Sequence[grid.Outcome]) -> Iterator[Row]:
    """Lines of results.csv."""
    for outcome in outcomes:
        if outcome.refused:
            yield (*_setting(outcome), *[None] * (len(HEAD) - len(SETTING) - 1), f"not possible: {outcome.refused}")
        for seed in outcome.seeds:
            one = outcome.of_seed(seed)
            reaches = one.reaches
            for line in one.lines:
                yield _result_row(one, seed, line, [reaches.get((line.name, name)) for name in grid.DISTILLED])


def _result_row(outcome: grid.Outcome, seed: int, line: Line, reaches: Sequence[ReachLine | None]) -> Row:
    reached = [(None,) * 3 if r is None else (r.round, r.client_bytes, r.ratio) for r in reaches]
    travels = bool(line.runs[0].traffic)
    return (
        *_setting(outcome),
        seed,
        line.name,
        line.kind,
        "none" if line.epsilon is None else line.epsilon,
        line.delta,
        line.roc_auc.mean,
        line.accuracy.mean,
        line.log_loss.mean,
        outcome.commonest,
        line.best_roc_auc.mean,
        line.best_round,
        line.rounds,
        *((line.up, line.down, line.client_bytes, line.seconds) if travels else (None,) * 4),
        len(line.runs[0].traffic) if travels else None,
        *reached[0],
        *reached[1],
        " | ".join(line.runs[0].notes),
    )


def round_rows(outcomes: Sequence[grid.Outcome]) -> Iterator[Row]:
    """Lines of rounds.csv."""
    for outcome in outcomes:
        for run in outcome.comparison.runs if outcome.comparison else ():
            if run.traffic:
                for p in run.points:
                    judged = (p.roc_auc, p.accuracy, p.log_loss)
                    yield (*_setting(outcome), run.seed, run.name, p.round, run.client_bytes(p), *judged)


def markdown(outcomes: Sequence[grid.Outcome]) -> str:
    """results.md."""
    out = ["# Results", ""]
    done = [o for o in outcomes if o.comparison]
    if done:
        out += ["## The claim, setting by setting", "", CLAIM, "", *claim_table(done), ""]
    for name, members in grid.tables_of(outcomes).items():
        out += [f"## {name}", ""]
        for outcome in members:
            out += [f"### {outcome.setting.clients} clients, {grid.split_words(outcome.setting.split)}", ""]
            out += [f"Not possible: {outcome.refused}"] if outcome.refused else _setting_section(outcome)
            out += [""]
    return "\n".join(out)


CLAIM = (
    "AUC and accuracy are those of the last model on the test rows; *best baseline* is the one whose last model is best, "
    "with its difference to distillation behind it (positive: distillation is ahead); *best round of any* is the highest AUC "
    "of any baseline after any round, chosen on the test rows, which flatters it. *Bytes* are those of a client, both ways, "
    "until the server holds the model. *Bytes to the same AUC* is what the cheapest baseline spent until it first had "
    "distillation's AUC, as a multiple of distillation's bytes, and in brackets the same of uploads; where none has it, the "
    "least that a baseline spent in vain."
)


def claim_table(outcomes: Sequence[grid.Outcome]) -> list[str]:
    """One line a setting and size of the bundles."""
    head = [
        "setting",
        "method",
        "AUC",
        "best baseline",
        "best round of any",
        "centralised",
        "accuracy",
        "best baseline",
        "bytes a client",
    ]
    rows = []
    for outcome in outcomes:
        federated = [line for line in outcome.lines if line.kind == "federated"]
        central = next(line for line in outcome.lines if line.kind == "central")
        for line in (line for line in outcome.lines if line.kind == "distilled"):
            rows.append(
                [
                    outcome.setting.words,
                    line.name,
                    spread(line.roc_auc),
                    _against(line, max(federated, key=lambda f: f.roc_auc.mean), "roc_auc"),
                    f"{max(f.best_roc_auc.mean for f in federated):.4f}",
                    spread(central.roc_auc),
                    spread(line.accuracy),
                    _against(line, max(federated, key=lambda f: f.accuracy.mean), "accuracy"),
                    readable_bytes(line.client_bytes),
                    cheapest_words(outcome, line, federated),
                ]
            )
    return table([*head, "bytes to the same AUC"], rows)


def cheapest_words(outcome: grid.Outcome, line: Line, federated: Sequence[Line]) -> str:
    """Which baseline has the distilled model's AUC for the fewest bytes."""
    reached = [r for (_, name), r in outcome.reaches.items() if name == line.name and r.client_bytes is not None]
    if not reached:
        least = min(federated, key=lambda f: f.client_bytes)
        times = readable_ratio(least.client_bytes / line.client_bytes)
        return f"none has it; the least spent is {times} × ({least.name}, {least.rounds:g} rounds)"
    first = min(reached, key=lambda r: r.client_bytes or 0.0)
    assert first.ratio is not None
    assert first.up_ratio is not None
    times = f"{readable_ratio(first.ratio)} × (up {readable_ratio(first.up_ratio)} ×)"
    return f"{times}, {first.baseline}, round {first.words}"


def _against(line: Line, other: Line, key: str) -> str:
    mine, theirs = getattr(line, key).mean, getattr(other, key).mean
    return f"{other.name} {theirs:.4f} ({mine - theirs:+.4f})"


def _setting_section(outcome: grid.Outcome) -> list[str]:
    """One line a method, and what a reader must know."""
    head = ["method", "ε", "AUC", "accuracy", "best AUC on the way", "rounds", "bytes up", "bytes up and down"]
    head += [f"reaches {name}" for name in grid.DISTILLED]
    rows = []
    for line in outcome.lines:
        travels = bool(line.runs[0].traffic)
        reaches = [outcome.reaches.get((line.name, name)) for name in grid.DISTILLED]
        rows.append(
            [
                line.name,
                "none" if line.epsilon is None else f"{line.epsilon:.2f}",
                *(spread(figure, over_seeds=line.kind != "alone") for figure in (line.roc_auc, line.accuracy)),
                f"{line.best_roc_auc.mean:.4f} (round {line.best_round:g})" if line.kind == "federated" else "",
                f"{line.rounds:g}" if travels else "",
                *((readable_bytes(n) if travels else "") for n in (line.up, line.client_bytes)),
                *(reach_words(r) for r in reaches),
            ]
        )
    assert outcome.comparison is not None
    known = [f"Always naming the commonest class has an accuracy of {outcome.commonest:.4f}."]
    notes = [f"- {note}" for note in outcome.comparison.notes]
    return [*known, "", *table(head, rows), *(["", *notes] if notes else [])]


def reach_words(reach: ReachLine | None) -> str:
    """When and for how many bytes."""
    if reach is None:
        return ""
    if reach.client_bytes is None or reach.ratio is None:
        return reach.words
    return f"round {reach.words}, {readable_bytes(reach.client_bytes)}, {readable_ratio(reach.ratio)} ×"


def spread(figure: Figure, *, over_seeds: bool = True) -> str:
    """A mean, with its standard deviation where there are several repetitions; one over clients is not shown."""
    return f"{figure.mean:.4f}" + (f" ± {figure.spread:.4f}" if over_seeds and figure.spread is not None else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]


def _setting(outcome: grid.Outcome) -> Row:
    return (outcome.setting.table, outcome.setting.clients, outcome.setting.split)
