"""Files on disk: whole or not at all, and back as they were."""

import json

from rissole.core import files
from rissole.harness.errors import InputError

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


def test_json_refuses_what_is_no_number(tmp_path):
    files.write_json(tmp_path / "a.json", {"score": 1.0})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"score": float("nan")})
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


def test_bytes_of_another_width_are_refused():
    column = pa.chunked_array([files.bytes_column(np.zeros((2, 4), np.uint8))])
    with pytest.raises(InputError, match="holds 4 bytes a row"):
        files.bytes_array(column, np.uint8, (5,))


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


def test_no_flipped_bit_and_no_cut_of_tensors_goes_unnoticed(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.randn(3, 4), "n": torch.tensor(7.0), "none": torch.zeros(0)}
    files.write_tensors(path, tensors, {"step": 3})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, 8 * place + place % 8))
        with pytest.raises(InputError, match="cannot be read"):
            files.read_tensors(path)
    path.write_bytes(content[:-10])
    with pytest.raises(InputError, match="a.safetensors: cannot be read"):
        files.read_tensors(path)


def test_no_flipped_bit_makes_other_rows_of_a_table(tmp_path):
    """Parquet has checksums for its pages, none for the footer that names them."""
    path = tmp_path / "a.parquet"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8), np.uint8)
    table = pa.table({"id": np.arange(50), "image": files.bytes_column(pixels)})
    files.write_table(path, table)
    content = path.read_bytes()
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    places, refused = range(0, pages, 3), 0
    for place in places:
        path.write_bytes(flipped(content, 8 * place + place % 8))
        try:
            assert files.read_table(path) == table
        except InputError:
            refused += 1
    assert refused > 0.9 * len(places) > 130


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


@pytest.mark.parametrize("rows, piece", [(1, 1), (1023, 256), (2500, 300), (4096, 5000)])
def test_a_table_written_in_pieces_is_that_written_at_once(tmp_path, rows, piece):
    codes = np.random.default_rng(0).integers(0, 255, (rows, 3000), np.uint8)
    table = pa.table({"code": files.bytes_column(codes), "number": pa.array(range(rows))})
    files.write_table(tmp_path / "whole.parquet", table)
    with files.growing_table(tmp_path / "pieces.parquet") as add:
        for start in range(0, rows, piece):
            add(table.slice(start, piece))
    assert (tmp_path / "pieces.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    column = files.read_table(tmp_path / "pieces.parquet", ["code"])["code"]
    assert np.array_equal(files.bytes_array(column, np.uint8, (3000,)), codes)


def test_a_table_that_is_not_finished_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), files.growing_table(tmp_path / "table.parquet") as add:
        add(pa.table({"number": pa.array(range(3000))}))
        raise KeyError
    assert not list(tmp_path.iterdir())
