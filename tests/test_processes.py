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

from rissole.ground import files, processes
from rissole.ground.errors import InputError
from tiny import ROOT, TINY

import numpy as np
import pytest
import torch
import yaml
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
FIRST_STAGE = ["train_vqgan", "encode_latents"]
DENOISER = ["train_ldm/rissole"]
LAST_DIGIT = 1.01e-4  # relative: a curve is written with five digits
DRAW = ["sample_images/rissole", "extract_features/rissole"]
BETWEEN = ["embed_images", "build_index", "retrieve_neighbours/main"]


def start(folder: Path, count: int, *words: str) -> str:
    """Run stages in a folder as so many processes."""
    launcher = [sys.executable]
    if count > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*launcher, ROOT / "tests/shared_run.py", *words],
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
    overrides = [f"{key}={value}" for key, value in SETTINGS.items()]
    apply_overrides(folder / "params.yaml", overrides)
    start(folder, 1, "split_data", *FIRST_STAGE, *BETWEEN, *DENOISER, *DRAW)
    return folder


def copy(one: Path, to: Path, *without: str) -> Path:
    shutil.copytree(one, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
    return to


def curve(folder: Path, name: str) -> np.ndarray:
    with (folder / f"metrics/loss/{name}.csv").open() as file:
        lines = list(csv.DictReader(file))
    return np.array([[float(value or 0) for value in line.values()] for line in lines])


def weights(folder: Path, name: str = "last") -> torch.Tensor:
    tensors, _ = files.read_tensors(folder / f"data/ldm/rissole/{name}.safetensors")
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    """The first stage and the denoiser by two processes, each on what one process made before."""
    folder = copy(
        one, tmp_path_factory.mktemp("two"), "vqgan", "loss", "ldm", "samples", "features"
    )
    start(folder, 2, "train_vqgan")
    shutil.copytree(one / "data/vqgan", folder / "data/vqgan", dirs_exist_ok=True)
    for name in ("latents", "embeddings"):
        shutil.rmtree(folder / "data" / name)
    start(folder, 2, "encode_latents", "embed_images", *DENOISER)
    shutil.copytree(one / "data/ldm", folder / "data/ldm", dirs_exist_ok=True)
    start(folder, 2, *DRAW)
    return folder


def test_loss_curves_of_one_and_two_processes_agree(one, two):
    ours, theirs = curve(one, "rissole"), curve(two, "rissole")
    assert len(ours) == len(theirs) == 100
    np.testing.assert_allclose(theirs, ours, rtol=LAST_DIGIT, atol=2e-5)
    assert ours[-10:, 1].mean() < 0.95 * ours[:10, 1].mean()


def test_the_first_stage_learns_alike_until_a_last_bit_makes_another_code(one, two):
    """Which code is nearest is all or nothing: from the first that flips on, runs part slowly."""
    ours, theirs = curve(one, "vqgan"), curve(two, "vqgan")
    assert len(ours) == len(theirs) == 40
    np.testing.assert_allclose(theirs[:3], ours[:3], rtol=LAST_DIGIT, atol=2e-5)
    np.testing.assert_allclose(theirs[:, 1], ours[:, 1], rtol=0.1)


@pytest.mark.parametrize("name", ["latents", "embeddings", "samples", "features"])
def test_what_two_processes_encode_draw_and_see_is_equal_byte_for_byte(one, two, name):
    contents = [
        {path.relative_to(of): path.read_bytes() for path in (of / "data" / name).rglob("*.*")}
        for of in (one, two)
    ]
    assert contents[0] == contents[1] and contents[0]


def test_a_training_goes_on_with_another_number_of_processes(one, tmp_path):
    """Stopped after 37 of 100 steps as two processes, ended as one."""
    folder = copy(one, tmp_path, "ldm", "loss")
    assert "stopped" in start(folder, 2, "stop/37", *DENOISER)
    (state,) = folder.glob("checkpoints/train_ldm/rissole/*/*.safetensors")
    assert state.name == "000000037.safetensors"
    assert not (folder / "data/ldm").exists()
    start(folder, 1, *DENOISER)
    for name in ("last", "best"):
        ours, theirs = weights(folder, name), weights(one, name)
        assert (ours - theirs).norm() < 5e-3 * theirs.norm()  # Adam blows up a gradient of nothing
    ours, theirs = curve(folder, "rissole"), curve(one, "rissole")
    np.testing.assert_allclose(ours, theirs, rtol=LAST_DIGIT, atol=2e-5)
    assert not list(folder.glob("checkpoints/train_ldm/rissole/*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_interrupted_processes_keep_their_state_within_five_seconds(number, one, tmp_path):
    """As `kill` of torchrun does, and ctrl-C, which all of them hear."""
    folder = copy(one, tmp_path, "ldm", "loss")
    apply_overrides(folder / "params.yaml", ["presets.quick.ldm.steps=100000", "checkpoint=1"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*launcher, ROOT / "stages/train_ldm.py", "rissole"],
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
        clock = time.time()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    kept = re.search(
        r"train_ldm.py: stopped; what was learnt until step (\d+) is kept in (\S+);", said
    )
    state = max(folder.glob("checkpoints/train_ldm/rissole/*/*.safetensors"))
    assert state.stat().st_mtime - clock < 5
    assert kept and kept[2] == str(state.relative_to(folder)), said
    assert files.read_tensors(state)[1]["step"] == int(kept[1])
    assert "all_reduce" not in said


def test_a_training_stopped_and_gone_on_with_is_bit_equal(one, tmp_path):
    folder = copy(one, tmp_path, "ldm", "loss")
    start(folder, 1, "stop/37", *DENOISER)
    start(folder, 1, *DENOISER)
    assert torch.equal(weights(folder), weights(one))
    assert torch.equal(weights(folder, "best"), weights(one, "best"))
    assert (curve(folder, "rissole") == curve(one, "rissole")).all()


def test_another_training_does_not_go_on_from_there(one, tmp_path):
    folder = copy(one, tmp_path, "ldm", "loss")
    start(folder, 1, "stop/37", *DENOISER)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["presets"]["quick"]["ldm"]["learning_rate"] /= 2
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    start(folder, 1, *DENOISER)
    assert not torch.equal(curve_start(folder), curve_start(one))


def curve_start(folder: Path) -> torch.Tensor:
    return torch.from_numpy(curve(folder, "rissole")[5:30, 1])


FAILING = """
import atexit
import time

from rissole.ground import processes, runtime
from rissole.ground.errors import InputError


def main():
    runtime.set_up(1)
    if processes.first():
        processes.wait()
    atexit.register(time.sleep, 300)  # what ends NCCL in order waits for the others
    raise {error}("nothing is left")


if __name__ == "__main__":
    runtime.run(main, shared=True)
"""


@pytest.mark.parametrize("error", ["InputError", "RuntimeError"])
def test_a_process_that_fails_waits_for_no_other(error, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING.format(error=error))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "failing.py"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT / "stages"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "nothing is left" in done.stderr


STRANGERS = {
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "2"},
    "srun": {"SLURM_STEP_NUM_TASKS": "4"},
    "accelerate": {"ACCELERATE_MIXED_PRECISION": "no"},
}


@pytest.mark.parametrize("launcher", STRANGERS)
def test_a_launch_of_processes_that_do_not_know_of_each_other_is_refused(launcher, monkeypatch):
    for name, value in STRANGERS[launcher].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="torchrun --nproc-per-node N|RISSOLE_PROCESSES=N"):
        processes.check(shared=True)


def test_a_stage_that_cannot_be_shared_is_refused_to_many(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="cannot be shared out"):
        processes.check(shared=False)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "ACCELERATE_LOG_LEVEL"])
def test_a_process_that_is_alone_is_welcome_wherever_it_was_started(name, monkeypatch):
    """As in a script of `sbatch -n 4`, which is one process."""
    monkeypatch.setenv(name, "1" if name.startswith("SLURM_STEP") else "4")
    processes.check(shared=True)


@pytest.mark.parametrize("wanted", ["0", "two", "-1", ""])
def test_a_number_of_processes_that_is_none_is_refused(wanted, monkeypatch):
    monkeypatch.setenv("RISSOLE_PROCESSES", wanted)
    with pytest.raises(InputError, match=f"RISSOLE_PROCESSES is '{wanted}'"):
        processes.start_wanted()


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


def test_an_uneven_batch_is_refused(one, monkeypatch):
    import toy
    from rissole.denoiser import training
    from test_training import build

    monkeypatch.setenv("WORLD_SIZE", "3")
    network, conditioning, images = build(toy.row("stack"), toy.ldm(batch=4))
    learner = training.Learner(network)
    with pytest.raises(InputError, match="ldm.batch is 4: 3 processes"):
        next(training.train(learner, conditioning, toy.ldm(batch=4), 0, images, images))
