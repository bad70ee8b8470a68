from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.errors import ConfigError
from server_train.models.features import Inputs
from server_train.training import rows as row_source
from server_train.training.rows import FileRows, MemoryRows, batches, make_files, open_files, steps


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Makes a `FileRows` whose every value tells its row: 10 rows a block, 3 blocks at once."""
    monkeypatch.setattr(row_source, "BLOCK_ROWS", 10)
    monkeypatch.setattr(row_source, "BUFFER_BLOCKS", 3)
    opened = []

    def make(rows):
        folder = tmp_path / str(rows)
        folder.mkdir()
        make_files(folder, rows, (2, 1, 2))
        opened.extend(open_files(folder))
        source = FileRows(tuple(opened[-3:]), rows, (2, 1, 2))
        number = np.arange(rows)
        dense, codes = np.column_stack([number, -number]), number[:, None]
        for part in (slice(rows // 2, rows), slice(0, rows // 2)):  # parts come in any order
            inputs = Inputs(dense[part].astype(np.float32), codes[part])
            source.write(part.start, inputs, np.column_stack([number, 2 * number])[part])
        return source

    yield make
    for file in opened:
        file.close()


def epoch(source, batch_size, seed):
    """The rows of each batch, by their numbers."""
    out = []
    for (dense, codes, labels), batch in batches(source, batch_size, torch.Generator().manual_seed(seed)):
        number = codes[batch, 0]
        assert (dense[batch] == torch.stack([number, -number], dim=1)).all()
        assert (labels[batch] == torch.stack([number, 2 * number], dim=1)).all()
        out.append(number.tolist())
    return out


@pytest.mark.parametrize("rows", [7, 30, 31, 60, 97])
@pytest.mark.parametrize("batch_size", [4, 30, 1000])
def test_an_epoch_takes_every_row_once_in_as_many_steps_as_foretold(stored, rows, batch_size):
    source = stored(rows)
    for seed in (0, 1):
        taken = epoch(source, batch_size, seed)
        assert len(taken) == steps(source, batch_size)
        assert sorted(chain(*taken)) == list(range(rows))


def test_the_order_follows_from_the_seed_and_mixes_blocks(stored):
    source = stored(95)
    one, two, other = (list(chain(*epoch(source, 5, seed))) for seed in (0, 0, 1))
    assert one == two != other
    blocks = [{number // 10 for number in one[start : start + 30]} for start in (0, 30, 60)]
    assert all(len(b) == 3 for b in blocks)
    assert blocks[0] != {0, 1, 2} or blocks[1] != {3, 4, 5}
    assert one[:30] != sorted(one[:30])


def test_rows_on_disk_that_fit_into_the_buffer_come_in_the_order_of_rows_in_memory(stored):
    source = stored(25)
    dense, codes, labels = (values.numpy() for values in source.read([slice(0, 25)]))
    assert epoch(source, 4, 3) == epoch(MemoryRows(dense, codes, labels), 4, 3)


def test_too_little_room_on_the_disk_is_refused_before_a_file_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(row_source.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match=r"1,000,000 rows takes 0\.0 GB"):
        make_files(tmp_path, 1_000_000, (1, 1, 2))
    assert list(tmp_path.iterdir()) == []


def test_files_that_were_cut_short_are_noticed(stored):
    source = stored(25)
    source.files[0].truncate(100)
    with pytest.raises(ConfigError, match="cut short"):
        source.read([slice(0, 25)])
