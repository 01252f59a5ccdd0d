"""The whole pipeline on a tiny preset, in a clone of its own, run by DVC as a user runs it."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

from rissole.ground import files
from tiny import ENVIRONMENT, ROWS, TINY, run

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

PER_ROW = (
    "train_ldm",
    "sample_images",
    "extract_features",
    "audit_samples",
    "compute_fid",
    "show_samples",
)


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def test_the_whole_dag_runs_and_dvc_takes_no_longer_than_twice_the_stages(clone):
    folder, seconds = clone
    with Repo(folder) as repo:
        everything = {stage.name for stage in repo.index.stages}
    assert stages_run((folder / "repro.log").read_text()) == everything
    spent = sum(files.read_json(of)["seconds"] for of in folder.glob("checkpoints/seconds/*.json"))
    assert seconds < 3 * spent  # DVC adds its own, on a slow machine as on a fast one


def test_it_ends_by_printing_the_table_and_where_the_pictures_are(clone):
    log = (clone[0] / "repro.log").read_text()
    table = log[log.index("Running stage 'make_tables'") :]
    assert all(re.search(rf"^\| {row} ", table, re.M) for row in ROWS)
    assert "metrics/grids" in table


def test_every_row_has_samples_with_their_provenance(clone):
    import pyarrow.parquet as pq

    folder, _ = clone
    rows = yaml.safe_load((folder / "params.yaml").read_text())["rows"]
    for row, of in rows.items():
        samples = pq.read_table(folder / f"data/samples/{row}/samples.parquet")
        assert len(samples) == 12
        assert samples["number"].to_pylist() == list(range(12))
        queries, neighbours = samples["query"].to_pylist(), samples["neighbours"].to_pylist()
        if of["context"] == "latents":
            assert queries == neighbours == [None] * 12
        else:
            assert len(set(queries)) == 12
            copied = [q in near for q, near in zip(queries, neighbours, strict=True)]
            assert copied == [row == "released"] * 12


def test_another_row_s_table_numbers_are_its_own_metrics(clone):
    folder, _ = clone
    table = json.loads((folder / "metrics/tables.json").read_text())
    for row in ROWS:
        numbers = table[row]
        fid = json.loads((folder / f"metrics/fid/{row}.json").read_text())
        assert numbers["fd_effnet_lite1"] == fid["fd_effnet_lite1"]["val"]


def test_a_second_repro_runs_nothing_and_soon_says_so(clone):
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        output = run(clone[0], "dvc", "repro")
        seconds.append(time.monotonic() - start)
        assert stages_run(output) == set()
        assert "up to date" in output
    assert min(seconds) < clone[1] / 4


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


RESULTS = [
    *(f"metrics/{kind}/released.json" for kind in ("fid", "audit", "ldm", "sampling")),
    *(f"metrics/{name}.json" for name in ("controls", "reference", "retrieval", "vqgan", "tables")),
    "metrics/neighbours/main.json",
    "metrics/loss/released.csv",
    "metrics/tables.md",
    "metrics/claims.yaml",
]


@pytest.mark.parametrize("name", RESULTS)
def test_a_number_edited_by_hand_is_caught(name, bare):
    before = (bare / name).read_bytes()
    place = re.search(rb"[0-9](?=[^0-9]*$)", before).start()
    other = b"1" if before[place : place + 1] != b"1" else b"2"
    (bare / name).write_bytes(before[:place] + other + before[place + 1 :])
    try:
        assert not is_up_to_date(bare)
    finally:
        (bare / name).write_bytes(before)


REPRESENTATIVES = [
    "split_data",
    "train_vqgan",
    "encode_latents",
    "build_index",
    "retrieve_neighbours@main",
    "train_ldm@released",
    "sample_images@released",
    "build_reference",
    "score_controls",
    "extract_features@released",
    "audit_samples@released",
    "compute_fid@released",
    "show_samples@released",
    "make_tables",
    "make_report",
]


def declared(params: dict, keys: list[str]) -> dict:
    """params.yaml cut down to the keys that a stage declares."""
    kept = {"preset": params["preset"]}
    for *path, last in (key.split(".") for key in keys):
        source, target = params, kept
        for part in path:
            source, target = source[part], target.setdefault(part, {})
        target[last] = source[last]
    return kept


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_a_stage_needs_only_what_it_declares_and_writes_only_its_outs(name, clone, tmp_path):
    with Repo(clone[0]) as repo:
        stage = next(s for s in repo.index.stages if s.name == name)
    for dep in stage.deps:
        source, target = Path(dep.fs_path), tmp_path / dep.def_path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(dep, ParamsDependency):
            target.write_text(
                yaml.safe_dump(declared(yaml.safe_load(source.read_text()), dep.params))
            )
        elif source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    shutil.copy(clone[0] / "dvc.yaml", tmp_path)  # the report draws it; DVC takes it for no input
    before = set(tmp_path.rglob("*"))
    run(tmp_path, "sh", "-c", stage.cmd)
    outs = [tmp_path / out.def_path for out in stage.outs]
    made = {p for p in set(tmp_path.rglob("*")) - before if p.is_file() and p.suffix != ".pyc"}
    made = {path for path in made if path.relative_to(tmp_path).parts[0] != "checkpoints"}  # notes
    assert all(out.exists() for out in outs)
    assert all(any(path.is_relative_to(out) for out in outs) for path in made)


def test_a_traced_image_is_drawn_again_bit_by_bit(clone):
    said = run(clone[0], sys.executable, "stages/trace_sample.py", "released", "5")
    assert "drawn again, equal bit by bit" in said
    assert len(re.findall(r"^neighbour .*cosine", said, re.M)) == TINY["k"]
    assert len(re.findall(r"^block .*distance", said, re.M)) == 4


def test_a_trace_draws_by_what_the_image_was_drawn_with(clone, tmp_path):
    folder = Path(shutil.copytree(clone[0], tmp_path / "project", symlinks=True))
    apply_overrides(folder / "params.yaml", ["presets.quick.sample.steps=4"])
    said = run(folder, sys.executable, "stages/trace_sample.py", "no_rag", "5")
    assert "2 steps" in said and "drawn again, equal bit by bit" in said


def test_a_finished_run_is_published_with_the_digests_of_what_it_measured(clone):
    folder, _ = clone
    said = run(folder, sys.executable, "stages/publish_results.py", "tiny")
    assert "2 rows -> metrics/published/tiny/results.json; tables left out" in said
    content = json.loads((folder / "metrics/published/tiny/results.json").read_text())
    fid = json.loads((folder / "metrics/fid/released.json").read_text())
    assert content["results"]["fid"]["released"] == fid
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert content["inputs"]["data/split"] == outs["data/split"]
    assert content["rows"]["no_rag"]["samples"] == outs["data/samples/no_rag"]
    assert content["settings"]["k"] == TINY["k"]


def test_figures_that_are_not_current_are_not_published(clone):
    folder, _ = clone
    path = folder / "metrics/controls.json"
    before = path.read_text()
    path.write_text(before.replace("1", "2", 1))
    try:
        words = [sys.executable, "stages/publish_results.py", "other"]
        done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert "score_controls: not current; run `dvc repro`" in done.stderr
    assert not (folder / "metrics/published/other").exists()


def test_a_sweep_over_k_is_queued_an_experiment_each(clone):
    run(clone[0], "dvc", "exp", "run", "--queue", "-S", "k=1,2")
    waiting = run(clone[0], "dvc", "queue", "status")
    run(clone[0], "dvc", "queue", "remove", "--all")
    assert len(re.findall(r"^\w+ .*Queued", waiting, re.M)) == 2


@pytest.fixture(scope="module")
def ran_for_k(clone):
    """The stages that a run with another k took; it changes the clone, so its tests come last."""
    return stages_run(run(clone[0], "dvc", "exp", "run", "-S", "k=4"))


def test_setting_k_reruns_what_k_touches_and_nothing_else(clone, ran_for_k):
    tables = yaml.safe_load((clone[0] / "params.yaml").read_text())["retrievals"]
    expected = {f"retrieve_neighbours@{name}" for name in tables}
    expected |= {f"{stage}@released" for stage in PER_ROW}
    expected |= {"score_controls", "make_tables", "make_report"}
    assert ran_for_k == expected


def test_two_experiments_differ_in_one_table_of_rows_and_measures(clone, ran_for_k):
    words = ["dvc", "metrics", "diff", "--targets", "metrics/tables.json"]
    header, *lines = run(clone[0], *words).strip().splitlines()
    assert header.split() == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert {line.split()[0] for line in lines} == {"metrics/tables.json"}
    changed = {line.split()[1] for line in lines}
    assert "released.fd_effnet_lite1" in changed
    assert not any(name.startswith("no_rag.") for name in changed)


def test_experiments_are_shown_in_few_columns(clone, ran_for_k):
    words = ["dvc", "exp", "show", "--only-changed", "--drop", "(data|metrics|stages)/.*", "--csv"]
    columns = run(clone[0], *words).splitlines()[0].split(",")
    assert columns == ["Experiment", "rev", "typ", "Created", "uncopied.released", "k"]


def test_an_experiment_with_one_row_alone_shows_its_score(clone, ran_for_k, tmp_path):
    folder = Path(shutil.copytree(clone[0], tmp_path / "project", symlinks=True))
    run(folder, "dvc", "exp", "run", "-n", "alone", "-S", "k=2", "compute_fid@released")
    words = ["dvc", "exp", "show", "--drop", "(data|metrics|stages)/.*", "--csv"]
    lines = list(csv.DictReader(run(folder, *words).splitlines()))
    scores = {line["Experiment"]: line["uncopied.released"] for line in lines}
    alone, before = scores.pop("alone"), {*scores.values()}
    fid = json.loads((folder / "metrics/fid/released.json").read_text())
    assert float(alone) == pytest.approx(fid["fd_effnet_lite1"]["uncopied"], rel=1e-3)
    assert before - {alone, ""}  # that of the commit, and of k = 4
