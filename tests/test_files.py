"""Files on disk: whole or not at all, and back as they were."""

import json

from rissole.ground import files
from rissole.ground.errors import InputError

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "new" / "file"):
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, number):
    files.write_json(tmp_path / "a.json", {"score": 1.0})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"score": number})
    assert files.read_json(tmp_path / "a.json") == {"score": 1.0}


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"score": 1})[:-1])
    with pytest.raises(InputError, match="a.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "read", [files.read_json, files.read_table, files.read_tensors], ids=lambda f: f.__name__
)
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(InputError, match="nothing.here does not exist"):
        read(tmp_path / "nothing.here")


shapes = st.tuples(st.integers(2, 9), st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None)
@given(arrays.arrays(np.uint16, shapes), st.data())
def test_bytes_come_back_from_any_slice_of_any_chunks(array, data):
    cut = data.draw(st.integers(1, len(array) - 1))
    start = data.draw(st.integers(0, len(array)))
    column = pa.chunked_array([files.bytes_column(array[:cut]), files.bytes_column(array[cut:])])
    back = files.bytes_array(column[start:], np.uint16, array.shape[1:])
    assert np.array_equal(back, array[start:])


@settings(deadline=None)
@given(arrays.arrays(np.int64, st.tuples(st.integers(2, 9), st.integers(1, 4))), st.data())
def test_lists_come_back_from_any_slice_of_any_chunks(array, data):
    cut = data.draw(st.integers(1, len(array) - 1))
    start = data.draw(st.integers(0, len(array)))
    column = pa.chunked_array([files.lists_column(array[:cut]), files.lists_column(array[cut:])])
    assert np.array_equal(files.lists_array(column[start:]), array[start:])


def test_bytes_come_back_from_disk_over_several_row_groups(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (2500, 2, 3), np.uint8)
    files.write_table(tmp_path / "a.parquet", pa.table({"image": files.bytes_column(array)}))
    column = files.read_table(tmp_path / "a.parquet", ["image"])["image"]
    assert np.array_equal(files.bytes_array(column, np.uint8, (2, 3)), array)


def test_bytes_of_another_width_are_refused():
    column = pa.chunked_array([files.bytes_column(np.zeros((2, 4), np.uint8))])
    with pytest.raises(InputError, match="holds 4 bytes a row"):
        files.bytes_array(column, np.uint8, (5,))


def test_a_tables_metadata_comes_back(tmp_path):
    table = pa.table({"id": [1]}).replace_schema_metadata({"size": "64"})
    files.write_table(tmp_path / "a.parquet", table)
    assert files.read_table(tmp_path / "a.parquet").schema.metadata == {b"size": b"64"}


def test_equal_tables_make_equal_files(tmp_path):
    for name in ("a", "b"):
        files.write_table(tmp_path / name, pa.table({"id": np.arange(3000)}))
    assert files.digest(tmp_path / "a") == files.digest(tmp_path / "b")


def test_tensors_and_what_is_said_about_them_come_back(tmp_path):
    tensors = {"w": torch.randn(3, 2).T, "i": torch.arange(4)}
    files.write_tensors(tmp_path / "a.safetensors", tensors, {"step": 3, "widths": [1, 2]})
    back, about = files.read_tensors(tmp_path / "a.safetensors")
    assert about == {"step": 3, "widths": [1, 2]}
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_truncated_table_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    files.write_table(path, pa.table({"id": np.arange(3000)}))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="a.parquet: cannot be read"):
        files.read_table(path)


def test_a_column_that_is_not_there_is_named(tmp_path):
    files.write_table(tmp_path / "a.parquet", pa.table({"id": [1]}))
    with pytest.raises(InputError, match="label"):
        files.read_table(tmp_path / "a.parquet", ["label"])


@pytest.mark.parametrize("kept", [4, -10])
def test_truncated_tensors_are_named(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"w": torch.randn(9)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="a.safetensors: cannot be read"):
        files.read_tensors(path)


def test_no_flipped_bit_of_tensors_goes_unnoticed(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.randn(3, 4), "n": torch.tensor(7.0), "none": torch.zeros(0)}
    files.write_tensors(path, tensors, {"step": 3})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, 8 * place + place % 8))
        with pytest.raises(InputError, match="cannot be read"):
            files.read_tensors(path)


def test_no_flipped_bit_makes_other_rows_of_a_table(tmp_path):
    """Parquet has checksums for its pages, none for the footer that names them."""
    path = tmp_path / "a.parquet"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8), np.uint8)
    table = pa.table({"id": np.arange(50), "image": files.bytes_column(pixels)})
    files.write_table(path, table)
    content = path.read_bytes()
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused = 0
    for place in range(pages):
        path.write_bytes(flipped(content, 8 * place + place % 8))
        try:
            assert files.read_table(path) == table
        except InputError:
            refused += 1
    assert refused > 0.9 * pages > 400


def flipped(content: bytes, bit: int) -> bytes:
    place, of = divmod(bit, 8)
    return content[:place] + bytes([content[place] ^ 1 << of]) + content[place + 1 :]


def test_a_curve_has_few_lines_that_average_what_was_taken(tmp_path):
    steps = [{"loss": float(i)} | ({"validation": 7.0} if i == 899 else {}) for i in range(900)]
    files.write_curve(tmp_path / "curve.csv", steps)
    lines = (tmp_path / "curve.csv").read_text().split()
    assert lines[0] == "step,loss,validation"
    assert lines[1] == "5,2,"
    assert lines[-1] == "900,897,7"
    assert len(lines) == 181


@pytest.mark.parametrize("piece", [1, 256, 300, 1024, 5000])
@pytest.mark.parametrize("rows", [1, 1023, 1024, 2500, 4096])
def test_a_table_written_in_pieces_is_that_written_at_once(tmp_path, rows, piece):
    codes = np.random.default_rng(0).integers(0, 255, (rows, 3000), np.uint8)
    table = pa.table({"code": files.bytes_column(codes), "number": pa.array(range(rows))})
    files.write_table(tmp_path / "whole.parquet", table)
    with files.growing_table(tmp_path / "pieces.parquet") as add:
        for start in range(0, rows, piece):
            add(table.slice(start, piece))
    assert (tmp_path / "pieces.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert files.read_table(tmp_path / "pieces.parquet").equals(table)


def test_a_table_that_is_not_finished_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), files.growing_table(tmp_path / "table.parquet") as add:
        add(pa.table({"number": pa.array(range(3000))}))
        raise KeyError
    assert not list(tmp_path.iterdir())
