"""The committed results: all rows there, once, finite, and the claims as the figures say."""

import json
import math
import re
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

from committed import ROOT, committed
from rissole.ground import config, files
from rissole.ground.errors import InputError
from rissole.results import claims, measurements

import pytest
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The committed settings."""
    folder = tmp_path_factory.mktemp("settings")
    for name in ("params.yaml", "stages/ablations/params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(committed(name))
    return config.read(folder / "params.yaml")


def names(settings, table: str) -> list[str]:
    if table == "metrics":
        return [*settings.rows]
    return [*dict.fromkeys(sum(settings.ablations.tables.values(), []))]


TABLES = ["metrics", "metrics/ablations"]
BOTH = ("reference", "controls")


def unique(pairs: list[tuple]) -> dict:
    """A JSON object, none of whose keys stands twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_there_once_and_every_number_finite(table, settings):
    rows = json.loads(committed(f"{table}/tables.json"), object_pairs_hook=unique)
    assert set(names(settings, table)) <= rows.keys()
    assert all(math.isfinite(number) for row in rows.values() for number in row.values())


@pytest.mark.parametrize("table", TABLES)
def test_every_claim_holds_or_not_as_the_figures_say(table, settings, tmp_path):
    rows = json.loads(committed(f"{table}/tables.json"))
    path = tmp_path / "claims.yaml"
    path.write_text(committed(f"{table}/claims.yaml"))
    rows_here = names(settings, table)
    asserted = claims.read(path)
    repeats = settings.repeats(rows_here) + settings.redraws(rows_here)
    assert asserted
    assert [one for one in asserted if claims.holds(one, rows, repeats) is not one.holds] == []


@pytest.mark.parametrize("table", TABLES)
def test_every_claim_is_told(table):
    told = (ROOT / "README.md").read_text() + (ROOT / "metrics/README.md").read_text()
    for one in yaml.safe_load(committed(f"{table}/claims.yaml")):
        assert one["says"] in told


def test_a_row_scored_against_other_images_is_in_no_table(settings, tmp_path, monkeypatch):
    """As it is after a run of one row on other images, and tables by hand."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)
    reference, controls = (files.read_json(Path(f"metrics/{name}.json")) for name in BOTH)
    assert len(measurements.read(settings.rows, reference, controls).fid) == len(settings.rows)
    scored = files.read_json(Path("metrics/fid/rissole.json"))
    scored["fd_effnet_lite1"]["floor"] += 1
    files.write_json(Path("metrics/fid/rissole.json"), scored)
    with pytest.raises(InputError, match="other true images.*dvc repro compute_fid@rissole"):
        measurements.read(settings.rows, reference, controls)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What git holds of the project: results and locks, no data."""
    folder = tmp_path_factory.mktemp("checkout") / "rissole"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


EDITED = {
    "metrics/audit/leaked.json": "audit_samples@leaked",
    "metrics/ablations/fid/k_1.json": "stages/ablations/compute_fid/dvc.yaml:compute_fid@k_1",
    "metrics/ablations/tables.json": "stages/ablations/dvc.yaml:make_ablation_tables",
    "metrics/published/anime_faces64/results.json": (
        "metrics/published/dvc.yaml:make_published_tables@anime_faces64"
    ),
    "metrics/published/groups64/tables.md": (
        "metrics/published/dvc.yaml:make_published_tables@groups64"
    ),
}


def up_to_date(folder, target) -> bool:
    alone = {"dry": True, "allow_missing": True, "single_item": True}
    with chdir(folder), Repo() as repo:
        try:
            return not repo.reproduce(targets=[target], **alone)
        except ReproductionError:  # a changed result whose inputs are not there
            return False


@pytest.mark.parametrize("name", EDITED)
def test_a_committed_number_edited_by_hand_is_caught(name, checkout):
    before = (checkout / name).read_bytes()
    place = re.search(rb"[0-9](?=[^0-9]*$)", before).start()
    other = b"1" if before[place : place + 1] != b"1" else b"2"
    assert up_to_date(checkout, EDITED[name])
    (checkout / name).write_bytes(before[:place] + other + before[place + 1 :])
    try:
        assert not up_to_date(checkout, EDITED[name])
    finally:
        (checkout / name).write_bytes(before)


def test_no_honest_row_is_accused_and_every_leak_is():
    rows = yaml.safe_load(committed("params.yaml"))["rows"]
    for row, of in rows.items():
        accused = json.loads(committed(f"metrics/audit/{row}.json"))["accused"]
        assert bool(accused) is of.get("may_copy", False), row


def test_all_rows_cost_the_same_within_a_twentieth_of_the_parameters_and_a_tenth_of_the_gflop():
    rows = yaml.safe_load(committed("params.yaml"))["rows"]
    table = json.loads(committed("metrics/tables.json"))
    for measure, most in (("parameters_live", 1.05), ("gflop_per_image", 1.1)):
        costs = [table[row][measure] for row in rows]
        assert max(costs) / min(costs) < most
