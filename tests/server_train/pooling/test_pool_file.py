import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from distill.data.schema import Schema
from distill.data.tables import canonical_table, read_table
from distill.errors import DataError
from server_train.pooling import pool_file
from server_train.pooling.pool_file import PoolCard, export_rows, open_pool, writing_pool
from tests.fakes.hubs import BINARY, TERNARY, class_chances, table
from tests.fakes.pools import NO_COST, stored_pool
from tests.fakes.registries import institution


def card(schema, rows, classes):
    return PoolCard(
        schema=schema,
        rows=rows,
        class_prior=(1 / classes,) * classes,
        institutions=[institution("Alder")],
        privacy=NO_COST,
    )


def written(path, schema, frames):
    classes = len(schema.classes)
    softs = [class_chances(frame, classes).astype(np.float32) for frame in frames]
    with writing_pool(path, card(schema, sum(map(len, frames)), classes)) as writer:
        for frame, soft in zip(frames, softs, strict=True):
            writer.write(frame, soft)
    return softs


@pytest.mark.parametrize("schema", [BINARY, TERNARY], ids=["whole classes", "text classes"])
def test_what_is_written_part_by_part_comes_back(tmp_path, schema):
    frames = [table(700, schema, 1), table(300, schema, 2)]
    softs = written(tmp_path / "pool.parquet", schema, frames)
    pool = open_pool(tmp_path / "pool.parquet")
    assert len(pool) == 1000
    assert pool.starts == (0, 700, 1000)
    for number, (frame, soft) in enumerate(zip(frames, softs, strict=True)):
        got, labels = pool.group(number)
        pd.testing.assert_frame_equal(got, frame)
        assert (labels == soft).all()
    got, labels = pool.rows(650, 720)
    pd.testing.assert_frame_equal(got, pd.concat(frames, ignore_index=True)[650:720].reset_index(drop=True))
    assert (labels == np.concatenate(softs)[650:720]).all()
    assert pool.column("age", 710).tolist() == pd.concat(frames)["age"].tolist()[:710]


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path):
    columns = [
        {"name": "count", "kind": "integer", "min": 0, "max": 9, "nullable": True},
        {"name": "open", "kind": "categorical", "categories": [1, 2], "other": True},
        {"name": "chance_0", "kind": "continuous", "min": 0, "max": 1},
        {"name": "y", "kind": "categorical", "categories": [0, 1]},
    ]
    schema = Schema.model_validate({"name": "t", "target": "y", "columns": columns})
    frame = pd.DataFrame(
        {"count": pd.array([1, None], "Int64"), "open": ["1", "other"], "chance_0": [0.25, 0.5], "y": [0, 1]}
    ).astype({"open": object})
    with writing_pool(tmp_path / "p.parquet", card(schema, 2, 2)) as writer:
        writer.write(frame, np.eye(2))
    got, soft = open_pool(tmp_path / "p.parquet").group(0)
    pd.testing.assert_frame_equal(got, frame)
    assert (soft == np.eye(2)).all()


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_exported_rows_are_a_table_of_the_schema_without_soft_labels(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pool_file, "GROUP_ROWS", 400)
    pool = stored_pool(tmp_path / "pool.parquet", BINARY, 1000)
    assert len(pool.starts) == 4
    export_rows(pool, tmp_path / name)
    got = read_table(tmp_path / name, BINARY, role="evaluate")
    pd.testing.assert_frame_equal(got, canonical_table(pool.rows(0, 1000)[0], BINARY, role="evaluate"))


def test_a_pool_that_is_not_finished_leaves_nothing(tmp_path):
    frame = table(50, BINARY, 0)
    with pytest.raises(KeyError):
        written(tmp_path / "p.parquet", BINARY, [frame, frame.drop(columns="age")])
    assert list(tmp_path.iterdir()) == []


def changed(path, change):
    """The pool at `path` with another card."""
    read = pq.read_table(path)
    content = json.loads(read.schema.metadata[b"distill-pool"])
    text = change(content)
    text = text if isinstance(text, str) else json.dumps(content)
    pq.write_table(read.replace_schema_metadata({b"distill-pool": text.encode()}), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: "{", "its card cannot be read"),
        (lambda c: "[]", "its card cannot be read"),
        (lambda c: c.update(rows=99), "do not hold the 99 rows"),
        (lambda c: c.update(more=1), "its card cannot be read"),
        (lambda c: c.update(format_version=99), "pool format 99"),
        (lambda c: c.update(class_prior=[0.2, 0.3, 0.5]), "its card and its target disagree"),
        (lambda c: c["schema"].update(target="grade"), "its card and its target disagree"),
        (lambda c: c["schema"]["columns"].pop(0), "its columns are not those"),
        (lambda c: c.update(class_prior=[float("nan"), 0.5]), "its card cannot be read"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(tmp_path, change, words):
    path = tmp_path / "p.parquet"
    written(path, BINARY, [table(100, BINARY, 0)])
    changed(path, change)
    with pytest.raises(DataError, match=words):
        open_pool(path)


def test_what_is_no_pool_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pool at"):
        open_pool(tmp_path / "absent.parquet")
    table(10, BINARY, 0).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(DataError, match="its footer has no card"):
        open_pool(tmp_path / "table.parquet")
    path = tmp_path / "p.parquet"
    written(path, BINARY, [table(100, BINARY, 0)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or cut short"):
        open_pool(path)


def test_row_groups_too_large_for_memory_are_refused(tmp_path, monkeypatch):
    written(tmp_path / "p.parquet", BINARY, [table(100, BINARY, 0)])
    monkeypatch.setattr(pool_file, "LARGEST_GROUP", 99)
    with pytest.raises(DataError, match="its row groups"):
        open_pool(tmp_path / "p.parquet")


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [-0.5, 1.5], [0.2, 0.2], [np.inf, 0.0]])
def test_soft_labels_that_are_no_chances_are_refused(tmp_path, bad):
    path = tmp_path / "p.parquet"
    with writing_pool(path, card(BINARY, 3, 2)) as writer:
        writer.write(table(3, BINARY, 0), np.array([[0.5, 0.5], bad, [1, 0]]))
    with pytest.raises(DataError, match="row group 0 holds soft labels that are no chances"):
        open_pool(path).group(0)
