"""The whole pipeline on a tiny preset, in a clone of its own, run by DVC as a user runs it."""

import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from rissole.core import files
from tiny import ENVIRONMENT, ROWS, TINY, run

import networkx
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

FIRST = "fd_effnet_lite1"  # the score by which rows are ranked


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def test_every_stage_runs_and_a_second_run_has_nothing_to_do(clone):
    folder, _ = clone
    with Repo(folder) as repo:
        everything = {stage.name for stage in repo.index.stages}
    assert stages_run((folder / "repro.log").read_text()) == everything
    again = run(folder, "dvc", "repro")
    assert not stages_run(again) and "up to date" in again


def test_it_prints_the_table_of_what_was_measured_and_where_the_pictures_are(clone):
    log = (clone[0] / "repro.log").read_text()
    printed = log[log.index("Running stage 'make_tables'") :]
    assert "metrics/grids" in printed
    table = files.read_json(clone[0] / "metrics/tables.json")
    for row in ROWS:
        fid = files.read_json(clone[0] / f"metrics/fid/{row}.json")[FIRST]
        assert table[row][FIRST] == fid["val"]
        (line,) = re.findall(rf"^\| {row} .*", printed, re.M)
        assert f" {fid['val']:.1f} " in line


def test_every_row_has_samples_with_their_provenance(clone):
    rows = yaml.safe_load((clone[0] / "params.yaml").read_text())["rows"]
    for row, of in rows.items():
        samples = pq.read_table(clone[0] / f"data/samples/{row}/samples.parquet")
        assert samples["number"].to_pylist() == list(range(12))
        queries, neighbours = samples["query"].to_pylist(), samples["neighbours"].to_pylist()
        if of["context"] == "latents":
            assert queries == neighbours == [None] * 12
        else:
            assert len(set(queries)) == 12
            copied = [q in near for q, near in zip(queries, neighbours, strict=True)]
            assert copied == [row == "released"] * 12


@pytest.fixture(scope="module")
def bare(clone, tmp_path_factory):
    """A clone of what git holds: results and lock, no data."""
    folder = tmp_path_factory.mktemp("bare")
    run(folder, "git", "clone", "-q", str(clone[0]), "bare")
    return folder / "bare"


def is_up_to_date(folder: Path) -> bool:
    """Whether the results agree with the lock, as `dvc repro --dry --allow-missing` sees it."""
    with chdir(folder), Repo() as repo:
        try:
            return not repo.reproduce(dry=True, allow_missing=True)
        except ReproductionError:  # a changed result whose inputs are not there
            return False


def test_committed_results_are_checked_without_the_data(bare):
    assert is_up_to_date(bare)


@pytest.mark.parametrize("name", ["fid/released.json", "tables.md"])
def test_a_number_edited_by_hand_is_caught(name, bare):
    path = bare / "metrics" / name
    before = path.read_bytes()
    place = re.search(rb"[0-9](?=[^0-9]*$)", before).start()
    other = b"1" if before[place : place + 1] != b"1" else b"2"
    path.write_bytes(before[:place] + other + before[place + 1 :])
    try:
        assert not is_up_to_date(bare)
    finally:
        path.write_bytes(before)


def test_another_k_runs_what_k_touches_and_nothing_else(clone):
    path = clone[0] / "params.yaml"
    before = path.read_text()
    apply_overrides(path, ["k=4"])
    try:
        with chdir(clone[0]), Repo() as repo:
            changed, graph = repo.status(), repo.index.graph
            first = [stage for stage in graph if stage.addressing in changed]
    finally:
        path.write_text(before)
    tables = yaml.safe_load(before)["retrievals"]
    expected = {f"retrieve_neighbours@{name}" for name in tables}
    expected |= {f"{stage}@released" for stage in ("train_ldm", "sample_images", "compute_fid")}
    assert first
    run_again = {of.name for stage in first for of in {stage, *networkx.ancestors(graph, stage)}}
    assert run_again == expected | {"score_controls", "make_tables", "make_report"}


def test_experiments_are_compared_by_the_one_score_of_each_row(clone):
    with chdir(clone[0]), Repo() as repo:
        shown = repo.metrics.show()[""]["data"]
    assert set(shown) == {f"metrics/scores/{row}.json" for row in ROWS}
    for row in ROWS:
        fid = files.read_json(clone[0] / f"metrics/fid/{row}.json")
        assert shown[f"metrics/scores/{row}.json"]["data"] == {
            "uncopied": {row: fid[FIRST]["uncopied"]}
        }


# What a stage reads and no figure of it depends on: a variant is read whole.
UNUSED = {"compute_fid@released": ["seed"]}


def declared(params: dict, keys: list[str]) -> dict:
    """params.yaml cut down to the keys that a stage declares."""
    kept = {"preset": params["preset"]}
    for *path, last in (key.split(".") for key in keys):
        source, target = params, kept
        for part in path:
            source, target = source[part], target.setdefault(part, {})
        target[last] = source[last]
    return kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "train_vqgan",
        "encode_latents",
        "build_index",
        "retrieve_neighbours@main",
        "train_ldm@released",
        "sample_images@released",
        "compute_fid@released",
        "make_tables",
    ],
)
def test_a_stage_needs_only_what_it_declares_and_writes_only_its_outs(name, clone, tmp_path):
    with Repo(clone[0]) as repo:
        stage = next(of for of in repo.index.stages if of.name == name)
    # All of the code, as what a stage lists of it is held against its imports in test_wiring.
    shutil.copytree(clone[0] / "stages", tmp_path / "stages")
    for dep in stage.deps:
        source, target = Path(dep.fs_path), tmp_path / dep.def_path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(dep, ParamsDependency):
            params = yaml.safe_load(source.read_text())
            target.write_text(
                yaml.safe_dump(declared(params, [*dep.params, *UNUSED.get(name, [])]))
            )
        elif source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    before = set(tmp_path.rglob("*"))
    run(tmp_path, "sh", "-c", stage.cmd)
    outs = [tmp_path / out.def_path for out in stage.outs]
    made = {p for p in set(tmp_path.rglob("*")) - before if p.is_file() and p.suffix != ".pyc"}
    made = {path for path in made if path.relative_to(tmp_path).parts[0] != "checkpoints"}  # notes
    assert all(out.exists() for out in outs)
    assert all(any(path.is_relative_to(out) for out in outs) for path in made)


@pytest.mark.slow
def test_a_traced_image_is_drawn_again_bit_by_bit_by_what_it_was_drawn_with(clone, tmp_path):
    folder = Path(shutil.copytree(clone[0], tmp_path / "project", symlinks=True))
    apply_overrides(folder / "params.yaml", ["presets.quick.sample.steps=4"])
    said = run(folder, sys.executable, "stages/trace_sample.py", "released", "5")
    assert "2 steps" in said and "drawn again, equal bit by bit" in said
    assert len(re.findall(r"^neighbour .*cosine", said, re.M)) == TINY["k"]
    assert len(re.findall(r"^block .*distance", said, re.M)) == 4


@pytest.mark.slow
def test_a_run_is_published_with_what_it_is_made_of_while_its_figures_are_current(clone, tmp_path):
    folder = Path(shutil.copytree(clone[0], tmp_path / "project", symlinks=True))
    said = run(folder, sys.executable, "stages/publish_results.py", "tiny")
    assert "2 rows -> metrics/published/tiny/results.json" in said
    content = files.read_json(folder / "metrics/published/tiny/results.json")
    fid = files.read_json(folder / "metrics/fid/released.json")
    assert content["results"]["fid"]["released"] == fid
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    (split,) = lock["split_data"]["outs"]
    assert content["inputs"]["data/split"] == split["md5"]
    assert content["settings"]["k"] == TINY["k"]

    path = folder / "metrics/controls.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    words = [sys.executable, "stages/publish_results.py", "other"]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "score_controls: not current; run `dvc repro`" in done.stderr
    assert not (folder / "metrics/published/other").exists()
