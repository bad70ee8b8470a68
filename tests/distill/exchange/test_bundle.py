"""A bundle reads back as written, and every kind of damage or malice in one is refused with an error of our own."""

import contextlib
import hashlib
import io
import json
import os
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.common.canonical_json import canonical
from distill.common.keys import generate_key, write_public_key
from distill.common.signed_zip import pack
from distill.common.tensors import decode_tensors, encode_tensors
from distill.data.schema import Schema
from distill.data.tables import OTHER
from distill.errors import (
    BundleBombError,
    BundleClaimError,
    BundleDigestError,
    BundleError,
    BundleLayoutError,
    BundleManifestError,
    BundleMemberError,
    BundleSamplesError,
    BundleSignatureError,
    BundleTensorError,
    BundleVersionError,
    KeyFileError,
)
from distill.exchange.bundle import GROUPS, MANIFEST, MEMBERS, SAMPLES, parse_bundle, read_bundle, write_bundle
from distill.exchange.samples import CELLS_A_BYTE, FREE_CELLS, MAX_CELLS, decode_samples, encode_samples
from distill.privacy.events import epsilon_of
from tests.assets.attacks_contents import described, parquet, stored_samples
from tests.assets.forge import (
    FRAME,
    REST,
    SCHEMA,
    SIZE,
    TENSORS,
    contents,
    edited,
    part,
    parts_of,
    release_fields,
    sealed,
    signed,
    tensor_file,
    with_file,
)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A key, another key, and what a release hands to `write_bundle`."""
    folder = tmp_path_factory.mktemp("house")
    key, other = generate_key(folder / "a.pem"), generate_key(folder / "b.pem")
    return key, other, release_fields(folder, key)


@pytest.fixture(scope="module")
def key(house):
    return house[0]


@pytest.fixture
def fields(house):
    return dict(house[2])


@pytest.fixture(scope="module")
def data(house, tmp_path_factory):
    """The bytes of a good bundle."""
    path = tmp_path_factory.mktemp("good") / "good.distill"
    write_bundle(path, **house[2])
    return path.read_bytes()


@pytest.fixture
def where(tmp_path):
    return tmp_path / "b.distill"


def parse(data, where, **options):
    return parse_bundle(data, path=where, **options)


def refused(data, where, match, kind):
    with pytest.raises(kind, match=match) as caught:
        parse(data, where)
    assert str(where) in str(caught.value)
    assert type(caught.value) is kind


def test_a_bundle_is_read_against_any_form_of_its_key(tmp_path, where, fields, house):
    public, wrong = tmp_path / "house.pub", tmp_path / "wrong.pub"
    write_public_key(public, house[0].public_hex)
    write_public_key(wrong, house[1].public_hex)
    digest = write_bundle(where, **fields)
    for key in (None, house[0], house[0].public_hex, public, str(public)):
        assert read_bundle(str(where), key=key).digest == digest
    for key in (house[1], house[1].public_hex, wrong, str(wrong)):
        with pytest.raises(BundleSignatureError, match="was expected"):
            read_bundle(where, key=key)
    with pytest.raises(KeyFileError, match="no public key"):
        read_bundle(where, key="nowhere.pub")


# --- what is written is what is read --------------------------------------------------------------------------------


def test_a_bundle_reads_back_as_it_was_written(house, where, fields):
    digest = write_bundle(where, **fields)
    bundle = read_bundle(where, key=house[0].public_hex)
    assert bundle.digest == digest == hashlib.sha256(where.read_bytes()).hexdigest()
    assert (bundle.path, bundle.size) == (where, where.stat().st_size)
    assert bundle.schema == SCHEMA
    pd.testing.assert_frame_equal(bundle.samples, FRAME, check_exact=True)
    assert list(bundle.tensors) == list(GROUPS)
    for group, tensors in TENSORS.items():
        assert set(bundle.tensors[group]) == set(tensors)
        for name, values in tensors.items():
            got = bundle.tensors[group][name]
            assert (got.dtype, got.shape) == (values.dtype, values.shape)
            np.testing.assert_array_equal(got, values)
    manifest = bundle.manifest
    assert (manifest.institution, manifest.noisy_rows, manifest.class_prior) == ("First Bank", 1234, [0.75, 0.25])
    assert manifest.privacy.events == (SIZE, *REST)
    assert manifest.generator == {"bins": [[0, 1.5]], "name": "soft"}
    assert not manifest.rehearsal
    assert "schema" in json.loads(manifest.to_bytes())


def test_any_zip_tool_can_open_a_bundle(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [*MEMBERS, "signature"]
        assert archive.testzip() is None
        assert pq.read_table(io.BytesIO(archive.read(SAMPLES))).num_rows == 3
    from safetensors.numpy import load

    assert set(load(contents(data)[1]["heads.safetensors"])) == {"weight", "bias"}


def test_the_same_contents_give_the_same_bytes(data, key):
    assert signed(*contents(data), key) == data


def test_canonical_frames_are_taken_as_well_as_public_ones(where, fields):
    frame = FRAME.copy()
    frame["job"] = pd.Categorical(FRAME["job"], categories=["clerk", "nurse", OTHER])
    frame["grade"] = pd.Categorical(["3", "1", "2"], categories=["1", "2", "3"])
    frame["age"] = FRAME["age"].astype(float)
    frame["cards"] = [np.nan, 9.0, 0.0]
    write_bundle(where, **(fields | {"samples": frame[list(frame.columns[::-1])]}))
    pd.testing.assert_frame_equal(read_bundle(where).samples, FRAME, check_exact=True)


def test_a_bundle_may_hold_no_rows_and_no_tensors(where, fields):
    write_bundle(where, **(fields | {"samples": FRAME.iloc[:0], "tensors": {}}))
    bundle = read_bundle(where)
    assert len(bundle.samples) == 0
    assert bundle.tensors == {"statistics": {}, "heads": {}, "components": {}}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(18, 100),
            st.none() | st.floats(0, 1e6),
            st.sampled_from(["clerk", "nurse", OTHER, None]),
            st.sampled_from([1, 2, 3]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_rows_that_fit_the_schema_survive_to_the_last_bit(rows):
    age, income, job, grade = zip(*rows, strict=True)
    frame = pd.DataFrame({"age": age, "income": np.array(income, dtype=float), "job": np.array(job, dtype=object)})
    frame["cards"], frame["grade"], frame["default"] = 3, grade, 1
    decoded = decode_samples(encode_samples(frame, SCHEMA), SCHEMA)
    pd.testing.assert_frame_equal(decoded, frame, check_exact=True)


# --- writing refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("age", [17, 44, 100], "'age' holds a number outside its bounds 18..100"),
        ("age", [18.5, 44, 100], "'age' is integer and holds a fraction"),
        ("age", [np.nan, 44, 100], "'age' must not have missing values"),
        ("income", [np.inf, 1, 1], "'income' holds a number outside"),
        ("job", ["pilot", "nurse", None], "'job' holds a category that is not in the schema"),
        ("grade", [1, 2, 4], "'grade' holds a category"),
        ("grade", [1, 2, None], "'grade' must not have missing values"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_not_written(where, fields, column, values, problem):
    frame = FRAME.assign(**{column: pd.Series(values)})
    with pytest.raises(BundleError, match=f"cannot make a bundle: column {problem}"):
        write_bundle(where, **(fields | {"samples": frame}))
    assert not where.exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"samples": FRAME.drop(columns="age")}, "columns are not those of the schema"),
        ({"samples": FRAME.assign(more=1)}, "columns are not those of the schema"),
        ({"tensors": {"heads": {"w": np.array([1.0, np.nan])}}}, "tensor w holds a value that is not finite"),
        ({"tensors": {"heads": {"w": np.array(["a"], dtype=object)}}}, "tensor w has type object"),
        ({"tensors": {"extras": {}}}, "not extras"),
        ({"class_prior": [0.5, 0.6]}, "class prior"),
        ({"class_prior": [1.0]}, "class prior"),
        ({"class_prior": [np.nan, 1.0]}, "class_prior"),
        ({"noisy_rows": -1}, "noisy_rows"),
        ({"institution": "two\nlines"}, "institution"),
        ({"generator": {"x": float("nan")}}, "settings are not plain JSON with finite numbers"),
        ({"generator": {"x": object()}}, "not plain JSON"),
        ({"dataset": "f" * 32}, "its data set is 'ffff"),
        ({"rehearsal": True}, "its rehearsal mark is True"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bundle_that_a_hub_would_refuse_is_never_written(where, fields, change, problem):
    with pytest.raises(BundleError, match=problem):
        write_bundle(where, **(fields | change))
    assert list(where.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"epsilon": 0.1}, "its events cost epsilon"),
        ({"epsilon": 1.6}, r"states epsilon 1\.6, and the ledger reserved 1\.5"),
        ({"delta": 1e-6}, "its delta is 1e-06"),
        ({"unit": "customer"}, "its unit is 'customer'"),
        ({"events": [SIZE]}, "its events are not those that the ledger proof"),
        ({"events": [SIZE, REST[0].model_copy(update={"noise_multiplier": 20.0})]}, "its events are not those"),
    ],
    ids=str,
)
def test_privacy_that_the_ledger_does_not_bear_out_is_not_written(where, fields, change, problem):
    with pytest.raises(BundleError, match=problem):
        write_bundle(where, **(fields | {"privacy": fields["privacy"] | change}))


def test_the_ledgers_key_must_sign(where, house, fields):
    with pytest.raises(BundleError, match="entry 3 of the ledger proof: it is signed by another key"):
        write_bundle(where, **(fields | {"key": house[1]}))


def test_epsilon_may_be_stated_as_low_as_the_events_cost(where, fields):
    lowest = epsilon_of([SIZE, *REST], 1e-5)
    write_bundle(where, **(fields | {"privacy": fields["privacy"] | {"epsilon": lowest}}))
    assert read_bundle(where).manifest.privacy.epsilon == lowest


def test_a_full_disk_is_told_and_the_file_removed(where, fields):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BundleError, match=rf"cannot write the bundle {where}: File too large"):
            write_bundle(where, **fields)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(where.parent.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(where, fields):
    with pytest.raises(BundleError, match=r"cannot write the bundle .*No such file.*Create the folder first"):
        write_bundle(where.parent / "none" / "b.distill", **fields)


# --- reading: what is not a bundle ----------------------------------------------------------------------------------


def test_what_is_not_a_bundle_is_told_apart(tmp_path, where):
    for path, content, problem in [
        (tmp_path / "none", None, "no bundle at"),
        (tmp_path, None, "is a directory"),
        (tmp_path / "empty", b"", "is not a bundle: it is empty"),
        (tmp_path / "csv", b"age,income\n", "is not a bundle"),
    ]:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BundleError, match=problem):
            read_bundle(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="is not a file"):
        read_bundle(tmp_path / "pipe")


def test_an_ordinary_zip_is_not_a_bundle(where):
    with zipfile.ZipFile(where, "w") as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(BundleLayoutError, match="header is not one that this software writes"):
        read_bundle(where)


def test_a_file_larger_than_a_bundle_may_be_is_not_read(where):
    with where.open("wb") as file:
        file.truncate((256 << 20) + 1)  # a hole, takes no space
    with pytest.raises(BundleError, match="larger than a bundle may be"):
        read_bundle(where)


# --- reading: damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(8))
def test_a_flip_of_any_bit_is_noticed(data, where, bit):
    """No byte of a bundle is without meaning: all 8 bits of all of them."""
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        with pytest.raises(BundleError):
            parse(broken, where)


def test_a_cut_at_any_length_is_noticed(data, where):
    for size in range(len(data)):
        with pytest.raises(BundleError):
            parse(data[:size], where)


def test_anything_before_between_or_after_is_noticed(data, where, key):
    for extra in (b"\0", b"PK\x05\x06" + b"\0" * 18, data):
        with pytest.raises(BundleError):
            parse(data + extra, where)
        with pytest.raises(BundleError):
            parse(extra + data, where)
    comment = data[:-2] + b"\x05\x00hello"
    refused(comment, where, "bytes after the last member", BundleLayoutError)


@given(place=st.integers(0, 1 << 20), cut=st.integers(0, 40), put=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_splice_is_noticed(data, place, cut, put):
    place %= len(data)
    spliced = data[:place] + put + data[place + cut :]
    if spliced != data:
        with pytest.raises(BundleError):
            parse(spliced, Path("spliced"))


# --- reading: malice. Everything below is signed properly with the institution's own key ------------------------------


def test_another_signer_is_noticed_when_the_key_is_known(data, where, house):
    parse(data, where, public_hex=house[0].public_hex)
    with pytest.raises(BundleSignatureError, match=f"signed by key {house[0].public_hex}, and {house[1].public_hex}"):
        parse(data, where, public_hex=house[1].public_hex)


def test_a_bundle_signed_anew_with_another_key_is_refused(data, where, house):
    manifest, files = contents(data)
    refused(signed(manifest, files, house[1]), where, "names another key than the one that", BundleSignatureError)
    forged = signed(manifest | {"public_key": house[1].public_hex}, files, house[1])
    refused(forged, where, "signed by another key", BundleClaimError)


def test_a_bundle_of_a_newer_version_is_told_from_a_forged_one(data, where, key):
    manifest, files = contents(data)
    newer = signed(manifest | {"format_version": 4, "news": True}, files | {"extra.bin": b"new"}, key)
    refused(newer, where, r"newer version of distill \(format 4.*update distill", BundleVersionError)
    forged = newer[:500] + bytes([newer[500] ^ 1]) + newer[501:]
    refused(forged, where, "the signature does not match the contents", BundleSignatureError)


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, None, True, [2]])
def test_a_version_that_is_none_is_refused(data, where, key, version):
    manifest, files = contents(data)
    refused(signed(manifest | {"format_version": version}, files, key), where, "manifest", BundleManifestError)


def test_extra_missing_doubled_and_swapped_members_are_refused(data, where, key):
    manifest, files = contents(data)
    refused(signed(manifest, files | {"extra.bin": b"x"}, key), where, r"unknown: \['extra.bin'\]", BundleMemberError)
    fewer = {name: content for name, content in files.items() if name != "heads.safetensors"}
    refused(signed(manifest, fewer, key, fresh=False), where, r"missing: \['heads.safetensors'\]", BundleMemberError)
    refused(signed(manifest, dict(reversed(files.items())), key), where, "members are not those", BundleMemberError)
    refused(pack(files, key), where, "manifest.json is missing", BundleMemberError)
    swapped = files | {"heads.safetensors": files["statistics.safetensors"]}
    refused(signed(manifest, swapped, key, fresh=False), where, "heads.safetensors has", BundleDigestError)
    same_size = files | {"heads.safetensors": files["heads.safetensors"][:-1] + b"\x7f"}
    refused(signed(manifest, same_size, key, fresh=False), where, "heads.safetensors has SHA-256", BundleDigestError)


def test_a_member_that_is_there_twice_is_refused(data, where, key):
    twice = sealed([*parts_of(data), part("samples.parquet", b"other")], key)
    refused(twice, where, "member samples.parquet is there twice", BundleMemberError)
    many = sealed([part(f"m{chr(97 + i)}", b"") for i in range(20)], key)
    refused(many, where, "more than 16 members", BundleMemberError)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "..", ".", "", "A", "con\\x", "x\x00y", "ä", "manifest.json ", "a" * 400]
)
def test_names_that_play_with_paths_are_refused(data, where, key, name):
    refused(sealed([*parts_of(data), part(name, b"x")], key), where, "name is not a plain file name", BundleMemberError)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (4_000_000_000, "samples.parquet says it unpacks to 4000000000 bytes, over the limit"),
        (400_000_000, "samples.parquet says it unpacks to more than 200 times"),
        (5, "does not end where its header says"),
        (10_000, "does not unpack to what its header says"),
    ],
)
def test_a_member_that_unpacks_to_something_else_than_it_says_is_refused(data, where, key, size, problem):
    manifest, files = contents(data)
    manifest["members"][SAMPLES]["size"] = size
    claims = {SAMPLES: {"size": size}}
    members = {MANIFEST: canonical(manifest), **files}
    claiming = sealed([part(name, content, **claims.get(name, {})) for name, content in members.items()], key)
    refused(claiming, where, problem, BundleBombError)


def test_a_bomb_is_refused_before_it_is_unpacked(data, where, key):
    manifest, files = contents(data)
    bomb = files | {"heads.safetensors": b"\0" * (50 << 20)}
    packed = signed(manifest, bomb, key)
    assert len(packed) < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(packed, where, "heads.safetensors says it unpacks to more than 200 times its packed", BundleBombError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes"
    large = pack({"manifest.json": b" " * (9 << 20)}, key)
    refused(large, where, "manifest.json says it unpacks to 9437184 bytes, over", BundleBombError)


@pytest.mark.parametrize(
    ("edit", "problem", "kind"),
    [
        (lambda m: m["schema"].update(target="grade"), "the schema's digest is", BundleClaimError),
        (lambda m: m["schema"]["columns"][0].update(max=101.0), "the schema's digest is", BundleClaimError),
        (lambda m: m.update(schema_digest="0" * 64), "and the manifest says 0000", BundleClaimError),
        (lambda m: m["schema"].update(more=1), "holds something that this format does not", BundleManifestError),
        (lambda m: m.update(more=1), "the manifest is wrong .*more", BundleManifestError),
        (lambda m: m.pop("software"), "the manifest is wrong .*software", BundleManifestError),
        (lambda m: m["privacy"].update(epsilon=0.2), "its events cost epsilon", BundleClaimError),
        (lambda m: m["privacy"].update(epsilon=1), "holds something that this format does not", BundleManifestError),
        (lambda m: m["privacy"].update(accountant="guess"), "accountant", BundleManifestError),
        (lambda m: m["privacy"].update(relation="replace one"), "relation", BundleManifestError),
        (
            lambda m: m["privacy"]["events"][1].update(noise_multiplier=99.0),
            "its events are not those",
            BundleClaimError,
        ),
        (lambda m: m["privacy"]["events"].pop(), "its events are not those", BundleClaimError),
        (lambda m: m["ledger"]["entries"].pop(), "are needed", BundleClaimError),
        (
            lambda m: m["ledger"]["entries"][1]["body"].update(epsilon=9.0),
            "entry 2 of the ledger proof: its contents",
            BundleClaimError,
        ),
        (lambda m: m["ledger"]["entries"].insert(0, 7), "the manifest is wrong", BundleManifestError),
        (lambda m: m["ledger"].update(head="zz"), "head", BundleManifestError),
        (lambda m: m.update(rehearsal=True), "its rehearsal mark is True", BundleClaimError),
        (lambda m: m.update(dataset="another"), "its data set is 'another'", BundleClaimError),
        (lambda m: m.update(class_prior=[1.0, 1.0]), "class prior", BundleClaimError),
        (lambda m: m.update(created="yesterday"), "created", BundleManifestError),
        (lambda m: m.update(institution="\x1b[31mBank"), "institution", BundleManifestError),
        (lambda m: m["schema"].update(columns=m["schema"]["columns"] * 30), "at most 100", BundleManifestError),
        (
            lambda m: m["schema"]["columns"][2].update(categories=["a", "a"] * 50_000),
            "more than 1000 categories",
            BundleManifestError,
        ),
        (lambda m: m.update(schema=[1]), "does not list its columns", BundleManifestError),
    ],
)
def test_a_manifest_that_lies_is_refused(data, where, key, edit, problem, kind):
    refused(edited(data, key, edit), where, problem, kind)


@pytest.mark.parametrize(
    "text",
    [b"[" * 200_000, b"{", b"\xff\xfe", b"null", b'{"a":1,"a":2}', b'{"format_version": 1}', b"1e999", b'"\\ud800"'],
)
def test_a_manifest_that_is_no_json_is_refused(data, where, key, text):
    refused(
        pack({"manifest.json": text, **contents(data)[1]}, key),
        where,
        "JSON|canonical|not an object",
        BundleManifestError,
    )


def _annotated(table):
    """The same with a line of metadata, as pandas writes it."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="NONE", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"pandas": "{}"})
    return sink.getvalue()


def test_the_stored_samples_are_what_the_tests_below_start_from(data, where, key):
    bundle = parse(with_file(data, key, SAMPLES, parquet(stored_samples())), where)
    pd.testing.assert_frame_equal(bundle.samples, FRAME, check_exact=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"job": pa.array([3, 0, 1], pa.int16())}, "'job' holds a category that is not in the schema"),
        ({"job": pa.array([-1, 0, 1], pa.int16())}, "'job' holds a category"),
        ({"grade": pa.array([3, 0, 1], pa.int16())}, "'grade' holds a category"),
        ({"grade": pa.array([None, 0, 1], pa.int16())}, "'grade' must not have missing values"),
        ({"age": pa.array([17, 44, 100], pa.int64())}, "'age' holds a number outside its bounds"),
        ({"age": pa.array([None, 44, 100], pa.int64())}, "'age' must not have missing values"),
        ({"income": pa.array([float("nan"), 0, 0], pa.float64())}, "'income' holds a number outside"),
        ({"income": pa.array([float("inf"), 0, 0], pa.float64())}, "'income' holds a number outside"),
        ({"income": pa.array([1, 0, 0], pa.int64())}, "'income' is not stored as double"),
        ({"job": pa.array(["clerk"] * 3)}, "'job' is not stored as int16"),
        ({"job": pa.array([[1]] * 3)}, "columns are not those of the schema"),
        ({"more": pa.array([1, 2, 3])}, "columns are not those of the schema"),
    ],
)
def test_samples_that_do_not_fit_the_schema_are_refused(data, where, key, changes, problem):
    refused(with_file(data, key, SAMPLES, parquet(stored_samples(**changes))), where, problem, BundleSamplesError)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a readable Parquet file"),
        (b"PAR1", "not a readable Parquet file"),
        (b"PAR1" + b"\xff" * 100 + b"PAR1", "not a readable Parquet file"),
        (parquet(stored_samples(), compression="zstd"), "packed inside"),
        (parquet(stored_samples(), store_schema=True), "metadata"),
        (_annotated(stored_samples()), "metadata"),
        (parquet(stored_samples().drop_columns(["age"])), "columns are not those"),
        (
            parquet(stored_samples().select(["income", "age", "job", "cards", "grade", "default"])),
            "columns are not those",
        ),
        (
            parquet(stored_samples().rename_columns(["age", "age", "job", "cards", "grade", "default"])),
            "columns are not",
        ),
    ],
    ids=range(9),
)
def test_a_hostile_parquet_file_is_refused(data, where, key, content, problem):
    refused(with_file(data, key, SAMPLES, content), where, problem, BundleSamplesError)


def test_a_parquet_file_with_more_cells_than_allowed_is_refused_by_its_footer():
    schema = Schema.model_validate(
        {
            "name": "wide",
            "target": "c0",
            "columns": [{"name": f"c{i}", "kind": "categorical", "categories": [0, 1]} for i in range(100)],
        }
    )
    bits = pa.array(np.arange(MAX_CELLS // 100 + 1, dtype=np.int16) % 2)
    with pytest.raises(ValueError, match="more than 500000 rows of 100 columns"):
        decode_samples(parquet(pa.table({f"c{i}": bits for i in range(100)})), schema)
    zeros = pa.table({f"c{i}": np.zeros(100_000, dtype=np.int16) for i in range(100)})
    most = CELLS_A_BYTE * len(parquet(zeros)) // 100
    assert FREE_CELLS // 100 < most < 100_000
    with pytest.raises(ValueError, match=f"more than {most} rows of 100 columns, the most for their size"):
        decode_samples(parquet(zeros), schema)
    assert len(decode_samples(parquet(zeros.slice(length=FREE_CELLS // 100)), schema)) == FREE_CELLS // 100


def test_no_damage_to_a_parquet_file_escapes_as_a_foreign_error(data):
    """Within a signed bundle nobody but the signer can do this; it must not bring the reader down all the same."""
    content = contents(data)[1][SAMPLES]
    for place in range(len(content)):
        for mask in (0xFF, 0x10):
            broken = content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]
            try:
                decoded = decode_samples(broken, SCHEMA)
            except ValueError:
                continue
            assert list(decoded.columns) == list(FRAME.columns)


def test_no_splice_of_a_parquet_file_escapes_as_a_foreign_error(data):
    content, rng = contents(data)[1][SAMPLES], np.random.default_rng(0)
    for _ in range(2000):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            place, cut = rng.integers(4, len(broken)), rng.integers(0, 4)
            broken[place : place + cut] = rng.bytes(rng.integers(0, 4))
        with contextlib.suppress(ValueError):
            decode_samples(bytes(broken), SCHEMA)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cut short"),
        (b"\xff" * 8, "header is larger than it may be"),
        (struct.pack("<Q", 1 << 62) + b"{}", "header is larger than it may be"),
        (struct.pack("<Q", 100) + b"{}", "header is larger than it may be"),
        (tensor_file(b"{"), "not valid JSON"),
        (tensor_file(b"[" * 100_000), "not valid JSON"),
        (tensor_file(b"[]"), "not a list of tensors"),
        (tensor_file({"__metadata__": {"a": "b"}}), "described wrongly"),
        (tensor_file(b'{"w":1,"w":2}'), "not valid JSON"),
        (tensor_file(described(), b"\0" * 15), "do not fill"),
        (tensor_file(described(), b"\0" * 17), "do not fill"),
        (tensor_file(described(dtype="F99"), b"\0" * 16), "a type that a bundle does not hold"),
        (tensor_file(described(dtype=["F64"]), b"\0" * 16), "a type that a bundle does not hold"),
        (tensor_file(described(shape=[3]), b"\0" * 16), "not as long as its shape says"),
        (tensor_file(described(shape=[1 << 39, 1 << 39]), b"\0" * 16), "not as long as its shape says"),
        (tensor_file(described(shape=[-2]), b"\0" * 16), "described wrongly"),
        (tensor_file(described(shape=[2.0]), b"\0" * 16), "described wrongly"),
        (tensor_file(described(shape=[True, 2]), b"\0" * 16), "described wrongly"),
        (tensor_file(described(shape=[1] * 9 + [2]), b"\0" * 16), "described wrongly"),
        (tensor_file(described(data_offsets=[8, 24]), b"\0" * 24), "does not begin where"),
        (tensor_file(described(data_offsets=[16, 0]), b"\0" * 16), "not as long as"),
        (tensor_file(described() | {"v": described()["w"]}, b"\0" * 16), "does not begin where"),
        (tensor_file(described(more=1), b"\0" * 16), "described wrongly"),
        (tensor_file({"\x1b[2J": described()["w"]}, b"\0" * 16), "name is not printable"),
        (tensor_file(described(), np.array([1.0, np.nan]).tobytes()), "tensor w holds a value that is not finite"),
        (tensor_file(described(), np.array([1.0, -np.inf]).tobytes()), "not finite"),
        (tensor_file(described(dtype="BOOL", shape=[1], data_offsets=[0, 1]), b"\x07"), "neither 0 nor 1"),
        (tensor_file({f"t{i}": described()["w"] for i in range(3000)}), "not a list of tensors"),
    ],
    ids=range(28),
)
def test_a_hostile_tensor_file_is_refused(data, where, key, content, problem):
    refused(with_file(data, key, "heads.safetensors", content), where, problem, BundleTensorError)


def test_tensors_of_every_allowed_type_survive():
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "?", ">f8", ">i4"]
    tensors = {kind: np.array([[0, 1], [1, 0]], dtype=kind) for kind in kinds}
    tensors["flipped"] = np.arange(6.0).reshape(2, 3).T
    back = decode_tensors(encode_tensors(tensors))
    for name, values in tensors.items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].dtype == values.dtype.newbyteorder("=")


def test_nothing_is_unpickled_when_a_bundle_is_read(data, where):
    where.write_bytes(data)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import distill.exchange.samples\n"
        "def watch(event, _):\n"
        "    if event.startswith(('pickle', 'marshal')): raise SystemExit(event)\n"
        "from distill.exchange.bundle import read_bundle\n"
        "read_bundle(Path(sys.argv[1]))\n"  # imports what is still missing
        "sys.addaudithook(watch)\n"
        "print(len(read_bundle(Path(sys.argv[1])).samples))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(where)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_a_stored_member_is_allowed(data, where, key):
    manifest, files = contents(data)
    members = {MANIFEST: canonical(manifest), **files}
    plain = [part(name, content, data=content, method=0) for name, content in members.items()]
    assert len(parse(sealed(plain, key), where).samples) == len(FRAME)
