"""What a run will take, and what would stop it: before it starts."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import check_setup
from rissole import params
from rissole.core import config
from rissole.core.config import Settings
from rissole.dataset.settings import Data
from rissole.denoiser.settings import variant_ldm
from rissole.drawing.settings import row_sample
from rissole.harness.errors import InputError
from rissole.speed import estimate, rehearsal
from rissole.speed.estimate import Estimate, Rehearsal
from rissole.speed.rehearsal import Cost
from rissole.speed.stages import STAGES, Size
from tiny import ENVIRONMENT, ROOT, TINY

import pytest
import yaml
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


@pytest.mark.slow
def test_a_rehearsal_of_every_stage_is_summed_up_in_a_table(project):
    apply_overrides(project / "params.yaml", [f"{key}={value}" for key, value in TINY.items()])
    # The number of processes that a stage would start is not that of the rehearsal.
    done = check(project, "--gpus", "4", RISSOLE_PROCESSES="2")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0][3] == "on 4 such devices, at best"
    settings = params.read(project / "params.yaml")
    calls = {name: of.calls(settings) for name, of in STAGES.items()}
    calls["in all"] = sum(calls.values())
    assert {line[0]: int(line[1]) for line in cells[2:]} == calls
    assert calls["train_ldm"] == len(settings.names("variants"))
    assert "(fd_effnet_lite1): no row can be expected to do better" in done.stdout
    assert "nothing stands in the way of `dvc repro`" in done.stdout
    assert {path.name for path in project.iterdir()} == {"params.yaml", "checkpoints"}
    left = {path.name for path in (project / "checkpoints").iterdir()}
    assert left == {"running", "seconds"}


def test_lines_add_up_what_devices_share_and_what_they_do_not():
    found = {"split_data": Estimate(1, 300.0, 50.0), "train_ldm": Estimate(3, 400.0, 2000.0)}
    *_, training, everything = check_setup.lines(found, 4)
    shared = "on 4 such devices, at best"
    assert (training["runs"], training["time"], training[shared]) == ("3", "6.7 min", "100 s")
    assert (everything["runs"], everything["time"], everything[shared]) == (
        "4",
        "11.7 min",
        "6.7 min",
    )
    assert everything["host memory (MB)"] == "2,000"
    assert shared not in check_setup.lines(found, 1)[0]


def test_it_knows_every_stage_of_the_pipeline_how_often_it_runs_and_what_scores_wait_for(settings):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    content = {name: of.get("do", of) for name, of in stages.items()}
    every = {
        name: len(settings.names(of["foreach"].strip("${}"))) if "foreach" in of else 1
        for name, of in stages.items()
    }
    assert list(every.items()) == [(name, of.calls(settings)) for name, of in STAGES.items()]

    def folders(paths) -> set[str]:
        """data/split and the like; a path with a row or a table in it by its folder."""
        names = (next(iter(path)) if isinstance(path, dict) else path for path in paths)
        names = (name.replace("${item.context}", "neighbours/main") for name in names)
        return {"/".join(name.split("/")[:2]) for name in names if name.startswith("data/")}

    needed, waiting = set(), ["compute_fid"]
    while waiting:
        needed.add(name := waiting.pop())
        read = folders(content[name]["deps"])
        waiting += [
            n for n, of in content.items() if folders(of["outs"]) & read and n not in needed
        ]
    assert {name for name, of in STAGES.items() if of.scores} == needed


@pytest.mark.parametrize(
    ("preset", "root", "command"),
    [
        ("", "", "dvc repro"),
        ("folder", "my own/faces", "dvc exp run -S preset=folder -S '+data.root=my own/faces'"),
    ],
)
def test_it_names_the_command_that_runs_what_it_looked_at(
    preset, root, command, project, monkeypatch
):
    assert check_setup.command_of(preset, root) == command
    monkeypatch.chdir(project)
    looked_at = check_setup.overridden(preset, root)
    words = shlex.split(command)
    apply_overrides(project / "params.yaml", words[words.index("-S") + 1 :: 2] if root else [])
    assert config.read(project / "params.yaml").content == looked_at


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


def test_what_grows_is_told_from_what_does_not(settings):
    """Two seconds to start, a hundredth of a second a step, and a kilobyte an image."""

    def rehearsed(size):
        of = Cost(2 + 0.01 * size.first_stage, 100 + 0.001 * size.images)
        return Rehearsal(size, dict.fromkeys(STAGES, of), {}, {}, {})

    first, second = Size(250, 5, 5, 1, 25, 2), Size(1000, 50, 50, 1, 100, 4)
    found = estimate.extrapolate(settings, WHOLE, rehearsed(first), rehearsed(second))
    assert found["train_vqgan"].seconds == pytest.approx(22)
    assert found["make_tables"].seconds == pytest.approx(2.5)  # as in the larger rehearsal
    assert found["split_data"].mb == pytest.approx(105)
    codes = 4 * 16**2 * 4000 / 1e6  # of the images that the rehearsal leaves out
    assert found["train_ldm"].mb == pytest.approx(101 + codes)
    assert found["sample_images"].calls == len(settings.names("rows"))


def test_a_training_is_foreseen_by_its_own_clock(settings):
    """Starting Python takes longer in one rehearsal than in the other; steps take what they do."""

    def rehearsed(size, start):
        seconds = {"train_ldm": 0.1 * size.denoiser}
        cost = Cost(start + seconds["train_ldm"], 100)
        return Rehearsal(size, dict.fromkeys(STAGES, cost), seconds, {}, {})

    first, second = Size(250, 5, 5, 0, 25, 2), Size(1000, 55, 55, 0, 100, 4)
    size = Size(5000, 2000, 450, 0, 500, 20)
    found = estimate.extrapolate(settings, size, rehearsed(first, 9), rehearsed(second, 3))
    assert found["train_ldm"].seconds == pytest.approx(48 * len(settings.names("variants")))


def test_a_rehearsal_has_no_more_steps_than_the_run_or_than_there_is_patience_for(settings):
    def second(of: Size, seconds: float) -> Size:
        first = estimate.first_size(settings, of)
        costs = dict.fromkeys(STAGES, Cost(seconds, 100))
        return estimate.second_size(settings, of, Rehearsal(first, costs, {}, {}, {}))

    tiny = Size(80, 8, 4, 1, 12, 2)
    assert second(tiny, 5) == tiny
    assert [second(WHOLE, seconds).denoiser for seconds in (1, 10, 1000)] == [200, 20, 10]


def test_the_disk_is_counted_by_what_each_folder_grows_with(settings):
    seen = Size(1000, 50, 50, 1, 100, 4)
    left = {"split": 1000, "ldm": 10, "samples": 100, "vqgan": 7, "neighbours": 50}
    of = Rehearsal(seen, {}, {}, left, {})
    rows, variants, tables = map(
        len, (settings.names("rows"), settings.names("variants"), settings.names("retrievals"))
    )
    wanted = 5 * 1000 + variants * 10 + 5 * rows * 100 + 7 + 5 * tables * 50
    assert estimate.disk(settings, WHOLE, of) == pytest.approx(2 * wanted)


def test_a_rehearsal_is_small_whatever_layer_asks_for_more(project, monkeypatch):
    monkeypatch.chdir(project)
    changes = ["+ldm.steps=7000", "+variants.rissole.ldm.steps=8000", "+data.unreadable=0.00001"]
    apply_overrides(project / "params.yaml", [*changes, "+rows.rissole.sample.steps=50"])
    apply_overrides(project / "params.yaml", ["preset=folder", "presets.folder.data.root=faces"])
    content = config.read(project / "params.yaml").content
    kept = {"rows": ["rissole"], "variants": ["rissole"], "retrievals": ["main"]}
    short = Settings(estimate.shortened(content, Size(250, 5, 6, 1, 25, 2), kept))
    assert short.names("variants") == ["rissole"]
    assert short.section(Data).root == str(project / "faces")  # as seen from a folder below
    assert variant_ldm(short, "rissole").steps == 6
    assert row_sample(short, "rissole").steps == 2
    assert short.section(Data).images == 250
    assert short.section(Data).unreadable == pytest.approx(1e-5 + 3 / 250)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (["preset=folder"], {}, "is 'images', which is not a folder"),
        (["+ldm.stepz=1"], {}, "did you mean 'steps'?"),
        (["presets.quick.data.images=100"], {}, "sample.images is 500"),
        ([], {"gpus": "3"}, "vqgan.batch is 8: 3 devices cannot share it evenly"),
        ([], {"preset": "foldr"}, "did you mean 'folder'?"),
        ([], {"root": "faces"}, "preset quick draws its images itself"),
        ([], {"preset": "folder", "root": "faces"}, "is 'faces', which is not a folder"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    changes, options, said, project, bad_inputs, monkeypatch
):
    bad_inputs.add(("check_setup", *changes, *options.values()))
    apply_overrides(project / "params.yaml", changes)
    monkeypatch.chdir(project)
    monkeypatch.setattr(estimate, "rehearse", lambda *_: pytest.fail("was rehearsed"))
    with pytest.raises(InputError, match=re.escape(said)):
        check_setup.main(**options)


def test_what_fails_in_a_stage_is_said(tmp_path, monkeypatch):
    (tmp_path / "some_stage.py").write_text("import sys; sys.exit('some_stage: no weights.pth')")
    monkeypatch.setattr(rehearsal, "SCRIPTS", tmp_path)
    with pytest.raises(InputError, match="some_stage a failed: some_stage: no weights.pth"):
        rehearsal.call(tmp_path, "some_stage", "a")


def test_too_little_room_is_an_error():
    with pytest.raises(InputError, match="needs 1,000,000,000.0 GB on disk"):
        check_setup.check_disk(1e18)
    too_much = {"train_ldm": Estimate(1, 1.0, 1e9)}
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
