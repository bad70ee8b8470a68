"""(not a test) One process of a training that several share: `training_process.py POOL FOLDER WHAT`.

WHAT: `train` writes what the first process has at the end to FOLDER; `die` and `hang` have the last process do so after an epoch.
"""

import json
import os
import sys
import time
from pathlib import Path

from server_train.models.model import probabilities
from server_train.pooling.pool_file import open_pool
from server_train.training import rows
from server_train.training.distributed import PeerError, joined
from server_train.training.network import Epoch, TrainingSettings
from server_train.training.out_of_core import train_stored

# Batches of an odd size, so that shares differ; blocks and buffers of which there are several.
SETTINGS = TrainingSettings(batch_size=331, steps=60, max_epochs=10, dropout=0.2)
TIMEOUT = {"hang": 20.0}


def main(pool: Path, folder: Path, what: str) -> int:
    rows.BLOCK_ROWS, rows.BUFFER_BLOCKS = 700, 2
    try:
        with joined(device="cpu", timeout=TIMEOUT.get(what, 120.0)) as group:

            def on_epoch(epoch: Epoch) -> None:
                if epoch.number == 2 and group.rank == group.size - 1:
                    if what == "die":
                        os._exit(9)
                    if what == "hang":
                        time.sleep(600)

            done = train_stored(open_pool(pool), SETTINGS, scratch=folder, group=group, on_epoch=on_epoch)
    except PeerError as error:
        print(f"PeerError: {error}", file=sys.stderr)
        return 2
    if group.rank == 0:
        trained, frame = done.trained, done.held_out_rows
        scores = probabilities(trained.network, trained.encoder.encode(frame))
        curve = [[e.training_loss, e.validation_loss] for e in trained.curve]
        result = {"scores": scores.tolist(), "curve": curve, "size": group.size}
        (folder / "result.json").write_text(json.dumps(result), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
