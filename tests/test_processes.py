"""Several processes: the same work, shared; real ones, over gloo."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import toy
from rissole.core import files
from rissole.denoiser import training
from rissole.harness import launch
from rissole.harness.errors import InputError
from test_training import build
from tiny import ROOT, TINY

import numpy as np
import pytest
import torch
from dvc.utils.hydra import apply_overrides

SETTINGS = TINY | {
    "seed": 3,
    "presets.quick.vqgan.steps": 40,
    "+presets.quick.vqgan.quantiser": (
        "{kind: vq, codes: 32, channels: 3, decay: 0.9, commitment: 0.25, restart: 0.1}"
    ),
    "presets.quick.ldm.steps": 100,
    "presets.quick.ldm.validations": 4,
    "presets.quick.ldm.learning_rate": 0.0003,  # at ten times that, rounding grows to 1e-4
    "presets.quick.sample.batch": 5,
}
FIRST_STAGE, DENOISER, DRAW = "train_vqgan", "train_ldm/rissole", "sample_images/rissole"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
LAST_DIGIT = 1.01e-4  # relative: a curve is written with five digits
BETWEEN = ["encode_latents", "embed_images", "build_index", "retrieve_neighbours/main"]


def start(folder: Path, count: int, *words: str) -> str:
    """Run stages in a folder as so many processes."""
    launcher = [*TORCHRUN, str(count)] if count > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, ROOT / "tests/shared_run.py", *words],
        cwd=folder,
        text=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Everything by one process."""
    folder = tmp_path_factory.mktemp("one")
    shutil.copy(ROOT / "params.yaml", folder)
    apply_overrides(folder / "params.yaml", [f"{key}={of}" for key, of in SETTINGS.items()])
    start(folder, 1, "split_data", FIRST_STAGE, *BETWEEN, DENOISER, DRAW)
    return folder


def copy(one: Path, to: Path, *without: str) -> Path:
    shutil.copytree(one, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
    return to


def curve(folder: Path, name: str) -> np.ndarray:
    with (folder / f"metrics/loss/{name}.csv").open() as file:
        lines = list(csv.DictReader(file))
    return np.array([[float(value or 0) for value in line.values()] for line in lines])


def weights(folder: Path, name: str) -> torch.Tensor:
    tensors, _ = files.read_tensors(folder / f"data/ldm/rissole/{name}.safetensors")
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    """The first stage and the denoiser by two processes, each on what one process made before."""
    folder = copy(one, tmp_path_factory.mktemp("two"), "vqgan", "loss", "ldm", "samples")
    start(folder, 2, FIRST_STAGE)
    shutil.copytree(one / "data/vqgan", folder / "data/vqgan", dirs_exist_ok=True)
    for name in ("latents", "embeddings"):
        shutil.rmtree(folder / "data" / name)
    start(folder, 2, "encode_latents", "embed_images", DENOISER)
    shutil.copytree(one / "data/ldm", folder / "data/ldm", dirs_exist_ok=True)
    start(folder, 2, DRAW)
    return folder


@pytest.mark.slow
def test_loss_curves_of_one_and_two_processes_agree(one, two):
    ours, theirs = curve(one, "rissole"), curve(two, "rissole")
    assert len(ours) == len(theirs) == 100
    np.testing.assert_allclose(theirs, ours, rtol=LAST_DIGIT, atol=2e-5)
    assert ours[-10:, 1].mean() < 0.95 * ours[:10, 1].mean()


@pytest.mark.slow
def test_the_first_stage_learns_alike_until_a_last_bit_makes_another_code(one, two):
    """Which code is nearest is all or nothing: from the first that flips on, runs part slowly."""
    ours, theirs = curve(one, "vqgan"), curve(two, "vqgan")
    assert len(ours) == len(theirs) == 40
    np.testing.assert_allclose(theirs[:3], ours[:3], rtol=LAST_DIGIT, atol=2e-5)
    np.testing.assert_allclose(theirs[:, 1], ours[:, 1], rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latents", "embeddings", "samples"])
def test_what_two_processes_encode_and_draw_is_equal_byte_for_byte(one, two, name):
    contents = [
        {path.relative_to(of): path.read_bytes() for path in (of / "data" / name).rglob("*.*")}
        for of in (one, two)
    ]
    assert contents[0] == contents[1] and contents[0]


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(one, tmp_path):
    """Stopped after 37 of 100 steps as two processes, ended as one."""
    folder = copy(one, tmp_path, "ldm", "loss")
    assert "stopped" in start(folder, 2, "stop/37", DENOISER)
    (state,) = folder.glob("checkpoints/train_ldm/rissole/*/*.safetensors")
    assert state.name == "000000037.safetensors"
    assert not (folder / "data/ldm").exists()
    start(folder, 1, DENOISER)
    for name in ("last", "best"):
        ours, theirs = weights(folder, name), weights(one, name)
        assert (ours - theirs).norm() < 5e-3 * theirs.norm()  # Adam blows up a gradient of nothing
    ours, theirs = curve(folder, "rissole"), curve(one, "rissole")
    np.testing.assert_allclose(ours, theirs, rtol=LAST_DIGIT, atol=2e-5)
    assert not list(folder.glob("checkpoints/train_ldm/rissole/*/"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_interrupted_processes_keep_a_checkpoint(number, one, tmp_path):
    """As `kill` of torchrun does, and ctrl-C, which all of them hear."""
    folder = copy(one, tmp_path, "ldm", "loss")
    apply_overrides(folder / "params.yaml", ["presets.quick.ldm.steps=100000", "checkpoint=1"])
    process = subprocess.Popen(
        [sys.executable, *TORCHRUN, "2", ROOT / "stages/train_ldm.py", "rissole"],
        cwd=folder,
        text=True,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob("checkpoints/train_ldm/rissole/*/*.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    kept = re.search(r"train_ldm.py: stopped; .* step (\d+) is kept in (\S+);", said)
    assert kept, said
    newest = max(folder.glob("checkpoints/train_ldm/rissole/*/*.safetensors"))
    assert kept[2] == str(newest.relative_to(folder))
    assert files.read_tensors(newest)[1]["step"] == int(kept[1])
    assert "all_reduce" not in said


FAILING = """
import atexit
import time

from rissole.core import numerics, processes
from rissole.harness.run import run


def main():
    numerics.set_up(1)
    if processes.first():
        processes.wait()
    atexit.register(time.sleep, 300)  # what ends NCCL in order waits for the others
    raise RuntimeError("nothing is left")


if __name__ == "__main__":
    run(main, shared=True)
"""


@pytest.mark.slow
def test_a_process_that_fails_waits_for_no_other(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "2", "failing.py"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT / "stages"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "nothing is left" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMPI_COMM_WORLD_SIZE", "2"),  # mpirun
        ("SLURM_STEP_NUM_TASKS", "4"),  # srun
        ("ACCELERATE_MIXED_PRECISION", "no"),  # accelerate launch
    ],
)
def test_a_launch_of_processes_that_do_not_know_of_each_other_is_refused(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="torchrun --nproc-per-node N .*RISSOLE_PROCESSES=N"):
        launch.check(shared=True)


def test_a_stage_that_cannot_be_shared_is_refused_to_many(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="cannot be shared out"):
        launch.check(shared=False)


@pytest.mark.parametrize(("name", "value"), [("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "4")])
def test_a_process_that_is_alone_is_welcome_wherever_it_was_started(name, value, monkeypatch):
    """As in a script of `sbatch -n 4`, which is one process."""
    monkeypatch.setenv(name, value)
    launch.check(shared=True)


@pytest.mark.parametrize("wanted", ["0", "two", ""])
def test_a_number_of_processes_that_is_none_is_refused(wanted, monkeypatch):
    monkeypatch.setenv("RISSOLE_PROCESSES", wanted)
    with pytest.raises(InputError, match=f"RISSOLE_PROCESSES is '{wanted}'"):
        launch.start_wanted()


@pytest.mark.slow
def test_a_stage_becomes_as_many_processes_as_the_environment_wants(one, tmp_path):
    """As `RISSOLE_PROCESSES=2 dvc repro` would call it; only the first speaks."""
    folder = copy(one, tmp_path, "latents")
    done = subprocess.run(
        [sys.executable, ROOT / "stages/encode_latents.py"],
        cwd=folder,
        text=True,
        capture_output=True,
        env=os.environ | {"RISSOLE_PROCESSES": "2"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "encode_latents: 1 of 1 files encoded -> data/latents"
    assert len(lines) == 2
    for path in (one / "data/latents").iterdir():
        assert (folder / "data/latents" / path.name).read_bytes() == path.read_bytes()


def test_an_uneven_batch_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    ldm = toy.ldm(batch=4)
    network, conditioning, images = build(toy.row("stack"), ldm)
    with pytest.raises(InputError, match="ldm.batch is 4: 3 processes"):
        next(training.train(training.Learner(network), conditioning, ldm, 0, images, images))
