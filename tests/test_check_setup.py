"""What a run will take, and what would stop it: before it starts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_setup
from rissole.ground import config
from rissole.ground.errors import InputError
from rissole.speed import estimate
from rissole.speed.estimate import Rehearsal
from rissole.speed.rehearsal import Cost
from rissole.speed.stages import STAGES, Size
from tiny import ENVIRONMENT, ROOT

import networkx
import pytest
import yaml
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

WHOLE = Size(images=5000, first_stage=2000, denoiser=450, validations=4, drawn=500, steps=20)


@pytest.fixture
def settings():
    return config.read(ROOT / "params.yaml")


def check(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    script = [sys.executable, str(ROOT / "stages/check_setup.py"), *words]
    pipes = {"text": True, "capture_output": True}
    return subprocess.run(script, cwd=folder, env=ENVIRONMENT | environment, **pipes)


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def costs(settings, seconds, mb):
    return {name: Cost(seconds, mb) for name in STAGES}


def test_it_foresees_the_time_of_a_run_within_a_factor_of_two(clone, tmp_path):
    folder, seconds = clone
    shutil.copy(folder / "params.yaml", tmp_path)
    # The number of processes that a stage would start is not that of the rehearsal.
    done = check(tmp_path, "--gpus", "4", RISSOLE_PROCESSES="2")
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^\| in all .*", done.stdout, re.M)
    number, unit = re.search(r"([\d.]+) (s|min) ", line).groups()
    foreseen = float(number) * {"s": 1, "min": 60}[unit]
    assert 1 / 2 < foreseen / seconds < 2  # 0.93 on an idle machine; a busy one is so by turns
    assert re.search(r"^\| train_ldm +\| +2 ", done.stdout, re.M)  # both rows
    assert "on 4 such devices, at best" in done.stdout
    assert "(fd_effnet_lite1): no row can be expected to do better" in done.stdout
    assert "nothing stands in the way" in done.stdout
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert not [name for name in left if name.startswith("rehearsal")]
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "checkpoints"}


def test_it_knows_every_stage_of_the_pipeline_and_how_often_it_runs(settings):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    every = {
        name: len(params[of["foreach"].strip("${}")]) if "foreach" in of else 1
        for name, of in stages.items()
    }
    known = {name: of.calls(settings) for name, of in STAGES.items()}
    assert list(known.items()) == list(every.items())


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ((), "dvc repro"),
        (
            ("folder", "my own/images"),
            "dvc exp run -S preset=folder -S 'presets.folder.data.root=my own/images'",
        ),
        (("celeba", ""), "dvc exp run -S preset=celeba"),
    ],
)
def test_it_names_the_command_that_runs_what_it_looked_at(words, run, project, monkeypatch):
    monkeypatch.chdir(project)
    assert check_setup.command_of(*(words or ("", ""))) == run


def test_the_floor_falls_as_that_of_true_images_did(settings):
    """Measured on drawn faces under the first judge, 200 against 100 and 1,037 against 500."""
    seen = Rehearsal(Size(1000, 50, 50, 1, 100, 4), {}, {}, {}, {"fd": 126.5})
    name, floor = estimate.floor(settings, Size(5185, 2000, 450, 4, 500, 20), seen)
    assert name == "fd"
    assert floor == pytest.approx(37.9, rel=0.2)
    # Ten times of both, far beyond the number of features: a tenth.
    large, larger = (Size(images, 1, 1, 1, images // 5, 1) for images in (50_000, 25_000))
    assert estimate.floor(settings, large, seen)[1] < floor / 5
    of = estimate.floor(settings, larger, seen)[1] / estimate.floor(settings, large, seen)[1]
    assert of == pytest.approx(2)


def test_it_knows_what_the_scores_of_a_row_wait_for():
    with Repo(str(ROOT)) as repo:
        graph, named = repo.index.graph, {of.addressing: of for of in repo.index.stages}
    wanted = named["compute_fid@rissole"]
    needed = {of.name.partition("@")[0] for of in networkx.descendants(graph, wanted) | {wanted}}
    assert {name for name, of in STAGES.items() if of.scores} == needed


def test_what_grows_is_told_from_what_does_not(settings):
    """Two seconds to start, a hundredth of a second a step, and a kilobyte an image."""

    def rehearsal(size):
        of = Cost(2 + 0.01 * size.first_stage, 100 + 0.001 * size.images)
        return Rehearsal(size, dict.fromkeys(STAGES, of), {}, {}, {})

    first, second = Size(250, 5, 5, 1, 25, 2), Size(1000, 50, 50, 1, 100, 4)
    found = estimate.extrapolate(settings, WHOLE, rehearsal(first), rehearsal(second))
    assert found["train_vqgan"].seconds == pytest.approx(22)
    assert found["make_tables"].seconds == pytest.approx(2.5)  # as in the larger rehearsal
    assert found["split_data"].mb == pytest.approx(105)
    codes = 4 * 16**2 * 4000 / 1e6  # of the images that the rehearsal leaves out
    assert found["train_ldm"].mb == pytest.approx(101 + codes)
    assert found["sample_images"].calls == len(settings.rows)


def test_a_training_is_foreseen_by_its_own_clock(settings):
    """Starting Python takes longer in one rehearsal than in the other; steps take what they do."""

    def rehearsal(size, start):
        seconds = {"train_ldm": 0.1 * size.denoiser}
        cost = Cost(start + seconds["train_ldm"], 100)
        return Rehearsal(size, dict.fromkeys(STAGES, cost), seconds, {}, {})

    first, second = Size(250, 5, 5, 0, 25, 2), Size(1000, 55, 55, 0, 100, 4)
    size = Size(5000, 2000, 450, 0, 500, 20)
    found = estimate.extrapolate(settings, size, rehearsal(first, 9), rehearsal(second, 3))
    assert found["train_ldm"].seconds == pytest.approx(12 * 48)


def test_a_run_no_larger_than_a_rehearsal_is_rehearsed_as_a_whole(settings):
    tiny = Size(80, 8, 4, 1, 12, 2)
    first = estimate.first_size(settings, tiny)
    cost = costs(settings, 5, 100)
    second = estimate.second_size(settings, tiny, Rehearsal(first, cost, {}, {}, {}))
    assert second == tiny


def test_a_slow_training_is_rehearsed_with_fewer_steps(settings):
    first = estimate.first_size(settings, WHOLE)
    steps = [
        estimate.second_size(
            settings, WHOLE, Rehearsal(first, costs(settings, seconds, 100), {}, {}, {})
        ).denoiser
        for seconds in (1, 10, 1000)
    ]
    assert steps == [200, 20, 10]


def test_the_disk_is_counted_by_what_each_folder_grows_with(settings):
    seen = Size(1000, 50, 50, 1, 100, 4)
    left = {"split": 1000, "ldm": 10, "samples": 100, "vqgan": 7, "neighbours": 50}
    of = Rehearsal(seen, {}, {}, left, {})
    rows, variants, tables = map(len, (settings.rows, settings.variants, settings.retrievals))
    wanted = 5 * 1000 + variants * 10 + 5 * rows * 100 + 7 + 5 * tables * 50
    assert estimate.disk(settings, WHOLE, of) == pytest.approx(2 * wanted)


def test_relative_paths_are_those_of_the_project(project, monkeypatch):
    apply_overrides(project / "params.yaml", ["preset=folder", "presets.folder.data.root=faces"])
    monkeypatch.chdir(project)
    params = yaml.safe_load((project / "params.yaml").read_text())
    kept = {"rows": ["rissole"], "variants": ["rissole"], "retrievals": ["main"]}
    short = estimate.shortened(params, Size(250, 5, 6, 1, 25, 2), kept)
    assert short["presets"]["folder"]["data"]["root"] == str(project / "faces")
    assert short["presets"]["folder"]["ldm"]["steps"] == 6
    assert list(short["variants"]) == ["rissole"]


def test_a_share_that_dvc_writes_with_an_exponent_is_a_number(project):
    apply_overrides(project / "params.yaml", ["data.unreadable=0.00001"])
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert params["data"]["unreadable"] == "1e-05"  # which YAML takes for a word
    short = estimate.shortened(params, Size(250, 5, 6, 1, 25, 2), {})
    assert short["presets"]["quick"]["data"]["unreadable"] == pytest.approx(1e-5 + 3 / 250)


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        (["preset=folder"], (), "data.root"),
        (["presets.quick.data.images=100"], (), "sample.images is 500"),
        ([], ("--gpus", "3"), "vqgan.batch is 8: 3 devices cannot share it evenly"),
        ([], ("--gpus", "many"), "--gpus is 'many': must be a number from 1 on"),
        ([], ("--preset", "foldr"), "did you mean 'folder'?"),
        ([], ("--preset", "folder", "--root", "faces"), "faces"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(project, bad_inputs, changes, words, said):
    bad_inputs.add(("check_setup", *changes, *words))
    apply_overrides(project / "params.yaml", changes)
    done = check(project, *words)
    assert done.returncode == 1
    assert re.match(r"check_setup\.py: ", done.stderr) and said in done.stderr
    assert "rehearsing" not in done.stdout


def test_what_would_fail_in_a_stage_is_said(clone, tmp_path, bad_inputs):
    bad_inputs.add(("check_setup", "judge.inception"))
    shutil.copy(clone[0] / "params.yaml", tmp_path)
    apply_overrides(tmp_path / "params.yaml", ["+presets.quick.judge.inception=weights.pth"])
    done = check(tmp_path)
    assert done.returncode == 1
    assert re.search("build_reference failed: .*weights.pth", done.stderr)


def test_too_little_room_is_an_error():
    with pytest.raises(InputError, match="needs 1,000,000,000.0 GB on disk"):
        check_setup.check_disk(1e18)
    too_much = {"train_ldm": estimate.Estimate(1, 1.0, 1e9)}
    with pytest.raises(InputError, match="train_ldm needs 1,000,000,000 MB of memory"):
        check_setup.check_memory(too_much)


def test_a_folder_that_others_can_write_to_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    check_setup.warn_of_strangers()
    assert capsys.readouterr().out == ""
    tmp_path.chmod(0o777)
    check_setup.warn_of_strangers()
    assert f"can write to {tmp_path}" in capsys.readouterr().out
