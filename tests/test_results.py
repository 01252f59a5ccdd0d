"""The committed results: all rows there, once, finite, and the claims as the figures say."""

import json
import math
import shutil
from pathlib import Path

from committed import ROOT, check_out, unique
from rissole import params
from rissole.core import files
from rissole.denoiser.settings import find_variant
from rissole.drawing.settings import find_row
from rissole.harness.errors import InputError
from rissole.results import claims, measurements
from rissole.results.measurements import Results

import pytest

MAIN = ("params.yaml", "stages/ablations/params.yaml", "metrics")  # which a run changes


def read(path: Path) -> dict:
    return json.loads(path.read_text(), object_pairs_hook=unique)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The committed settings and metrics of the default run."""
    return check_out(tmp_path_factory.mktemp("committed"), *MAIN)


@pytest.fixture(scope="module")
def metrics(folder):
    return folder / "metrics"


@pytest.fixture(scope="module")
def settings(folder):
    return params.read(folder / "params.yaml")


@pytest.fixture(scope="module")
def ablations():
    return read(ROOT / "metrics/published/ablations/results.json")


def test_every_row_is_in_the_tables_once_and_every_number_finite(settings, metrics):
    rows, controls = read(metrics / "tables.json"), read(metrics / "controls.json")
    assert rows.keys() == {*settings.names("rows"), *controls}
    assert all(math.isfinite(number) for row in rows.values() for number in row.values())


def test_the_tables_are_what_the_metrics_of_the_rows_say(settings, metrics):
    rows = {name: find_row(settings, name) for name in settings.names("rows")}
    results = measurements.read(metrics, rows, read(metrics / "controls.json"))
    assert read(metrics / "tables.json") == json.loads(json.dumps(measurements.numbers(results)))


def test_every_claim_holds_or_not_as_the_published_ablations_say(ablations):
    rows = measurements.numbers(Results(**ablations["results"]))
    asserted = claims.read(ROOT / "metrics/claims.yaml")
    assert asserted
    wrong = [claim.says for claim in asserted if claims.holds(claim, rows) is not claim.holds]
    assert wrong == []


def test_the_published_ablations_are_those_of_the_settings(settings, ablations):
    """But for the names of variants, which were others when they were run."""
    of, compared = settings.content["ablations"], 0
    for entry in of["rows"]:
        for seed in of["seeds"]:
            published = ablations["rows"].get(f"{entry}/{seed}")
            if published is None:
                continue
            row = find_row(settings, f"ablations/{entry}/{seed}")
            variant = find_variant(settings, row.variant)
            assert row.model_dump(mode="json") == published["row"] | {"variant": row.variant}, entry
            assert variant.model_dump(mode="json") == published["variant"], entry
            compared += 1
    assert compared > 100


def test_a_row_scored_against_other_images_is_in_no_table(settings, metrics, tmp_path):
    """As it is after a run of one row on other images, and tables by hand."""
    metrics = shutil.copytree(metrics, tmp_path / "metrics")
    rows = {"rissole": find_row(settings, "rissole")}
    controls = read(metrics / "controls.json")
    assert list(measurements.read(metrics, rows, controls).fid) == ["rissole"]
    scored = files.read_json(metrics / "fid/rissole.json")
    scored["fd_effnet_lite1"]["floor"] += 1
    files.write_json(metrics / "fid/rissole.json", scored)
    with pytest.raises(InputError, match=r"other true images.*dvc repro compute_fid@rissole"):
        measurements.read(metrics, rows, controls)


def test_no_honest_row_is_accused_and_every_leak_is(settings, metrics):
    for name in settings.names("rows"):
        accused = read(metrics / f"audit/{name}.json")["accused"]
        assert bool(accused) is find_row(settings, name).may_copy, name


def test_all_rows_cost_the_same_within_a_tenth(settings, metrics):
    table = read(metrics / "tables.json")
    for measure in ("parameters_live", "gflop_per_image"):
        costs = [table[row][measure] for row in settings.names("rows")]
        assert max(costs) / min(costs) < 1.1
