"""The check of a fresh table against the committed one lets noise pass and nothing else."""

import copy

import pytest

from compare_tables import differences

TABLE = {
    "rows": {
        "rissole": {"fd": 200.0, "parameters_live": 1000, "train_seconds": 40.0},
        "released": {"fd": 900.0},
    },
    "reference": {"fd": {"floor": 60.0}, "images": {"val": 1000}},
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
        (("reference", "fd", "floor"), 66.0),
        (("rows", "rissole", "train_seconds"), 400.0),
        (("rows", "released", "fd"), 1200.0),
    ],
)
def test_noise_passes(path, value):
    assert differences(TABLE, changed(*path, value=value)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", "rissole", "fd"), 240.0),
        (("rows", "rissole", "fd"), float("nan")),
        (("rows", "released", "fd"), 1300.0),
        (("rows", "rissole", "parameters_live"), 1001),
        (("reference", "images", "val"), 999),
        (("rows", "rissole", "more"), 1.0),
    ],
)
def test_a_real_difference_is_named(path, value):
    (line,) = differences(TABLE, changed(*path, value=value))
    assert ".".join(path) in line
