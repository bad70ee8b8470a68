import numpy as np
import pandas as pd
import pytest

from distill.data.schema import Schema
from distill.data.tables import write_table
from distill.errors import ConfigError, DataError, SchemaError
from server_train.comparison.deal.partition_file import save_partition
from server_train.comparison.deal.tables import Source, deal, digest_of, read_tables
from tests.fakes.comparisons import SCHEMA, canonical, folder_source, rows, table_source, write_schema


def test_every_row_of_a_table_is_at_one_client_or_in_the_test(tmp_path):
    source = table_source(tmp_path, clients=4)
    found = deal(read_tables(source), 0)
    assert list(found.clients) == ["client-1", "client-2", "client-3", "client-4"]
    assert found.words == "iid"
    parts = pd.concat([*found.clients.values(), found.test])
    whole = canonical(600)
    columns = list(whole.columns)
    pd.testing.assert_frame_equal(
        parts.sort_values(columns).reset_index(drop=True), whole.sort_values(columns).reset_index(drop=True)
    )


def test_the_test_rows_are_a_share_of_every_class_and_follow_the_seed(tmp_path):
    tables = read_tables(table_source(tmp_path, test_share=0.25))
    first, again, other = deal(tables, 0), deal(tables, 0), deal(tables, 1)
    for level in ("0", "1"):
        count = (canonical(600)["default"] == level).sum()
        assert (first.test["default"] == level).sum() == round(0.25 * count)
    assert first.digest == again.digest != other.digest


def test_a_folder_gives_one_client_a_table_and_leaves_the_test_file_out(tmp_path):
    source = folder_source(tmp_path, {"north": 80, "south": 120})
    write_table(rows(60, seed=9), tmp_path / "clients" / "held.csv")
    source = Source(place=source.place, schema=source.schema, test=tmp_path / "clients" / "held.csv")
    found = deal(read_tables(source), 0)
    assert {name: len(frame) for name, frame in found.clients.items()} == {"north": 80, "south": 120}
    assert len(found.test) == 60
    assert found.partition is None


def test_a_saved_partition_gives_the_same_rows_to_the_same_clients(tmp_path):
    source = table_source(tmp_path, clients=3, partition="dirichlet:0.5")
    first = deal(read_tables(source), 4)
    save_partition(first.partition, tmp_path / "saved.json")
    again = Source(place=source.place, schema=source.schema, partition=str(tmp_path / "saved.json"))
    assert deal(read_tables(again), 4).digest == first.digest
    with pytest.raises(ConfigError, match="was made for another table"):  # another seed sets other test rows aside
        deal(read_tables(again), 5)


def test_rows_of_one_unit_stay_on_one_side_of_the_split(tmp_path):
    schema = Schema.model_validate({**SCHEMA.model_dump(exclude_none=True), "unit": "person"})
    (tmp_path / "schema.json").write_text(schema.model_dump_json(exclude_none=True))
    table = rows(600).assign(person=[f"p{i // 3}" for i in range(600)], income=np.arange(600.0))
    write_table(table, tmp_path / "t.csv")
    found = deal(read_tables(Source(place=tmp_path / "t.csv", schema=tmp_path / "schema.json")), 0)
    assert schema.unit not in found.test.columns
    tested = set((found.test["income"] // 3).astype(int))
    kept = {int(person[1:]) for frame in found.clients.values() for person in frame["person"]}
    assert len(tested) == 40
    assert not tested & kept


def test_a_digest_tells_one_changed_cell():
    frame = canonical(50)
    changed = frame.copy()
    changed.loc[3, "income"] += 1.0
    assert digest_of(frame, SCHEMA) == digest_of(frame.copy(), SCHEMA) != digest_of(changed, SCHEMA)


def test_what_cannot_be_meant_is_refused(tmp_path):
    source = folder_source(tmp_path, {"north": 80})
    with pytest.raises(ConfigError, match="not from both"):
        Source(place=tmp_path, schema=source.schema, test=tmp_path / "x.csv", test_share=0.2)
    with pytest.raises(ConfigError, match="each table is one client"):
        Source(place=source.place, schema=source.schema, clients=3)
    with pytest.raises(ConfigError, match="test_share must be above 0"):
        Source(place=source.place, schema=source.schema, test_share=1.0)
    with pytest.raises(ConfigError, match="clients must be at least 1"):
        Source(place=tmp_path / "t.csv", schema=source.schema, clients=0)


def test_tables_that_cannot_be_compared_on_are_refused(tmp_path):
    source = folder_source(tmp_path, {"north": 80})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.csv or \.parquet files"):
        read_tables(Source(place=tmp_path / "empty", schema=source.schema))
    write_table(rows(30), source.place / "north.parquet")
    with pytest.raises(ConfigError, match="two tables are called 'north'"):
        read_tables(source)
    (source.place / "north.parquet").unlink()
    write_table(rows(30).iloc[:0], source.place / "void.csv")
    with pytest.raises(DataError, match="void has no rows"):
        read_tables(source)


def test_a_test_table_without_target_or_with_one_class_is_refused(tmp_path):
    source = folder_source(tmp_path, {"north": 80})
    write_table(rows(40).drop(columns="default"), tmp_path / "held.csv")
    with pytest.raises(DataError, match="missing: 'default'"):
        read_tables(Source(place=source.place, schema=source.schema, test=tmp_path / "held.csv"))
    write_table(rows(40).assign(default=0), tmp_path / "held.csv")
    with pytest.raises(DataError, match="a single class of 'default'"):
        read_tables(Source(place=source.place, schema=source.schema, test=tmp_path / "held.csv"))


def test_a_client_may_hold_one_class_only(tmp_path):
    source = folder_source(tmp_path, {"north": 120})
    write_table(rows(60, seed=3).assign(default=0), source.place / "zeros.csv")
    found = deal(read_tables(source), 0)
    assert set(found.clients["zeros"]["default"].astype(str)) == {"0"}


def test_a_share_that_leaves_a_client_nothing_is_refused(tmp_path):
    source = folder_source(tmp_path, {"north": 200}, test_share=0.8)
    write_table(rows(1, seed=3), source.place / "tiny.csv")
    with pytest.raises(DataError, match="leaves tiny without rows"):
        deal(read_tables(source), 0)


def test_a_drafted_schema_is_refused(tmp_path):
    write_table(rows(60), tmp_path / "t.csv")
    path = write_schema(tmp_path)
    path.write_text(path.read_text().replace('"from_data":false', '"from_data":true', 1))
    with pytest.raises(SchemaError, match="not confirmed"):
        read_tables(Source(place=tmp_path / "t.csv", schema=path))
