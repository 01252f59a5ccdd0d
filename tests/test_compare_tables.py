"""The check of a fresh table against the committed one lets noise pass and nothing else."""

import copy
import json

import compare_tables
from compare_tables import differences

import pytest

TABLE = {
    "rows": {
        "rissole": {
            "fd": 200.0,
            "recall": 0.5,
            "latent_seam": 1.0,
            "copied": 0.1,
            "parameters_live": 1000,
            "train_images_per_second": 40.0,
        },
        "released": {"fd": 900.0, "recall": 0.2},
        "held_out": {"fd": 100.0, "copied": 0.0},
    },
    "reference": {"fd": {"floor": 60.0}, "images": {"val": 1000}, "effnet": {"recall": 0.6}},
}


def changed(*path, value):
    table = copy.deepcopy(TABLE)
    *inner, last = path
    node = table
    for key in inner:
        node = node[key]
    node[last] = value
    return table


def test_equal_tables_agree():
    assert differences(TABLE, copy.deepcopy(TABLE)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", "rissole", "fd"), 225.0),
        (("rows", "rissole", "recall"), 0.41),
        (("rows", "rissole", "latent_seam"), 1.09),
        (("rows", "rissole", "copied"), 0.17),
        (("rows", "rissole", "train_images_per_second"), 400.0),
        (("rows", "released", "fd"), 1300.0),
        (("rows", "held_out", "copied"), 0.19),
    ],
)
def test_noise_passes(path, value):
    assert differences(TABLE, changed(*path, value=value)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", "rissole", "fd"), 240.0),
        (("rows", "rissole", "fd"), float("nan")),
        (("rows", "rissole", "recall"), 0.39),
        (("rows", "rissole", "latent_seam"), 1.11),
        (("rows", "rissole", "copied"), 0.19),
        (("rows", "released", "fd"), 1310.0),
        (("rows", "held_out", "copied"), 0.21),
        (("rows", "rissole", "parameters_live"), 1001),
        (("reference", "images", "val"), 999),
        (("rows", "rissole", "more"), 1.0),
    ],
)
def test_a_real_difference_is_named(path, value):
    (line,) = differences(TABLE, changed(*path, value=value))
    assert ".".join(path) in line


def test_a_row_that_is_gone_is_named():
    less = copy.deepcopy(TABLE)
    del less["rows"]["released"]
    assert [line for line in differences(TABLE, less) if "released.fd" in line]
    assert [line for line in differences(less, TABLE) if "released.fd" in line]


def test_a_table_is_read_from_a_file_or_from_a_revision(tmp_path):
    path = tmp_path / "tables.json"
    path.write_text(json.dumps(TABLE))
    assert compare_tables.read(str(path)) == TABLE
    assert compare_tables.read("HEAD").keys() >= {"rissole", "no_rag"}
