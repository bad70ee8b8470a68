"""Training a network on a prepared pool, by one process or by as many as `torchrun` starts:

    distill train-global bundles/ --rows 10000000 --prepare pool.parquet
    torchrun --nproc-per-node 2 -m server_train --pool pool.parquet --out global-model
    python -m server_train --pool pool.parquet --out global-model          # the same by one process

The model is the same up to rounding, however many processes made it, and what `train-global` would have written: `predict` and
`evaluate` read it. Every process reads the pool, so it must be at the same path on every machine; the first process writes.
Where one process fails all stop. Exit codes are those of `distill`: 0 done, 2 refused, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.common import checks
from distill.errors import ConfigError, DistillError
from server_train.hub.card import model_of
from server_train.hub.job import publish
from server_train.hub.outputs import Outputs
from server_train.models.folder import settle
from server_train.models.onnx_scorer import onnx_packages
from server_train.pooling.pool_file import open_pool
from server_train.training.class_weights import read_class_weights
from server_train.training.distributed import ALONE, Group, PeerError, joined
from server_train.training.fit import ModelChoice, fit_stored
from server_train.training.network import Epoch, TrainingSettings
from server_train.training.out_of_core import fitting

REFUSED, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        checks.positive(timeout=options.timeout)
        with joined(device=options.device, timeout=options.timeout) as group:
            result = run(options, group)
    except PeerError as error:
        print(str(error), file=sys.stderr)
        return REFUSED
    except DistillError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}.", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("error: interrupted. No model was written.", file=sys.stderr)
        return INTERRUPTED
    if result is not None:
        print(json.dumps(result, ensure_ascii=False) if options.json else _words(result))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m server_train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--pool", type=Path, required=True, metavar="FILE", help="what `train-global --prepare` wrote")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model")
    p.add_argument("--seed", type=int, default=0, help="repeats the training (default: 0)")
    p.add_argument("--batch-size", type=int, metavar="ROWS", help="rows a step, of all processes together")
    p.add_argument("--max-epochs", type=int, metavar="N", help="passes over the pool at most")
    p.add_argument("--class-weights", action="append", metavar="WEIGHTS", help="as for train-global")
    p.add_argument("--no-calibrate", dest="calibrate", action="store_false", help="leave scores as they are")
    p.add_argument("--onnx", action="store_true", help="also write model.onnx")
    p.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU a process, if there are"
    )
    p.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for another process (default: 600)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return p


def run(options: argparse.Namespace, group: Group = ALONE) -> dict[str, Any] | None:
    """Train, and in the first process write the model; what it says of it, None in the others."""
    out = options.out.absolute()
    with group.together():
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; name a folder.")
        pool = open_pool(options.pool)
        if pool.schema.task is None:
            raise ConfigError(f"{options.pool}: its schema names no target, so there is nothing to train a model for.")
        settings = _settings(options, len(pool))
        choice = ModelChoice(class_weights=read_class_weights(options.class_weights), calibrate=options.calibrate)
        if options.onnx:
            onnx_packages()
        out.parent.mkdir(parents=True, exist_ok=True)
        if group.rank == 0:
            settle(out)
    epochs = settings.epochs(len(pool))

    def on_epoch(epoch: Epoch) -> None:
        if group.rank == 0 and not options.json:
            losses = f"loss {epoch.training_loss:.5f}, on held-out rows {epoch.validation_loss:.5f}"
            print(f"epoch {epoch.number} of {epochs}: {losses}", file=sys.stderr)

    fitted = fit_stored(pool, settings, choice, scratch=out.parent, group=group, on_epoch=on_epoch)
    if group.rank:
        return None
    result = publish(model_of(pool.card, fitted, settings, choice), Outputs(folder=out, onnx=options.onnx)).as_dict()
    return {**result, "processes": group.size, "device": group.device.type}


def _settings(options: argparse.Namespace, rows: int) -> TrainingSettings:
    """The usual ones for a pool of this size, with what was asked for."""
    if options.seed < 0:
        raise ConfigError(f"--seed must be at least 0, not {options.seed}.")
    settings = fitting(TrainingSettings(seed=options.seed), rows)
    asked = {"batch_size": options.batch_size, "max_epochs": options.max_epochs}
    return replace(settings, **{name: value for name, value in asked.items() if value is not None})


def _words(result: dict[str, Any]) -> str:
    by = f"{result['processes']} processes" if result["processes"] > 1 else "one process"
    lines = [
        f"{result['rows']:,} pooled rows, {result['epochs']} epochs, {result['seconds']:.1f} s by {by}",
        *(["REHEARSAL: NOT PRIVATE. This model must not leave the house."] if result["rehearsal"] else []),
        *(f"note: {note}" for note in result["notes"]),
        f"model: {result['model']}  (report: {result['report']})",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
