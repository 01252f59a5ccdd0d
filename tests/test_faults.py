"""Kills, signals, full disks, broken checkpoints, diverging trainings."""

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from unittest import mock

import toy
from rissole.core import descent, files, threads
from rissole.core.training_run import TrainingRun
from rissole.denoiser import training
from rissole.harness import lock, signals
from rissole.harness.checkpoints import Checkpoints
from rissole.harness.errors import InputError
from rissole.retrieval import with_scann
from test_retrieval import build as build_index
from test_retrieval import clustered
from test_training import build
from tiny import ENVIRONMENT, ROOT, run

import pytest
import torch
from dvc.utils.hydra import apply_overrides

LEARNED_CODES = (
    "+presets.quick.vqgan.quantiser="
    "{kind: vq, codes: 32, channels: 3, decay: 0.9, commitment: 0.25, restart: 0.1}"
)
PATIENCE = 120  # seconds


@pytest.fixture(autouse=True)
def one_thread():
    yield
    threads.start(1)
    torch.set_num_threads(1)


# Checkpoints, and how a training goes on from one.


def checkpoints(fingerprint: str = "0") -> Checkpoints:
    return Checkpoints("train_ldm/row", fingerprint * 64, 300, first=True, alone=True)


class Stub:
    """A learner that learns nothing."""

    step = 0

    def load(self, tensors, numbers):
        self.step = numbers["step"]


def save(states: Checkpoints, step: int) -> None:
    tensors, numbers = {"curve": torch.ones(step, 1)}, {"step": step, "seconds": 0.0}
    states.save(step, lambda path: files.write_tensors(path, tensors, numbers))


def resumed(states: Checkpoints) -> int:
    """The step that a training goes on from."""
    learner = Stub()
    TrainingRun(learner, states, ["loss"], 100, Path("loss.csv"), "lower it")
    return learner.step


@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupted_training_goes_on_and_ends_bit_equal(count, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "hold", lambda *_: None)  # one process goes on from its own

    def train(folder: Path, interrupted_at: int | None = None) -> list[torch.Tensor]:
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        ldm = toy.ldm(dropout=0.1)
        network, conditioning, images = build(toy.row("stack"), ldm)
        learner = training.Learner(network)
        course = TrainingRun(
            learner, checkpoints(), training.TERMS, ldm.steps, Path("loss.csv"), "lower it"
        )
        for terms in training.train(learner, conditioning, ldm, 0, images, images):
            monkeypatch.setattr(signals, "_asked", learner.step == interrupted_at)
            course.note(terms)
        course.end()
        return [learner.averages, learner.best, learner.descent.weights.data]

    threads.start(count)
    undisturbed = train(tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt, match="learnt until step 4 is kept in checkpoints/"):
        train(tmp_path / "interrupted", 4)
    monkeypatch.setattr(signals, "_asked", False)
    again = train(tmp_path / "interrupted")
    assert all(map(torch.equal, again, undisturbed))
    curves = [tmp_path / of / "loss.csv" for of in ("undisturbed", "interrupted")]
    assert curves[0].read_bytes() == curves[1].read_bytes()
    assert not list(Path().rglob("*.safetensors"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_broken_checkpoint_is_left_out_and_the_one_before_it_used(
    damage, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    states = checkpoints()
    for step in (3, 50, 60):
        save(states, step)
    newer, older = states.paths()  # two are kept
    content = bytearray(newer.read_bytes())
    content[len(content) - 10] ^= 1
    size = {"truncated": len(content) // 2, "flipped": len(content), "empty": 0}[damage]
    newer.write_bytes(content[:size])
    assert resumed(states) == 50
    said = capsys.readouterr().err
    assert f"{newer}: cannot be read" in said and f"going on from {older}" in said
    save(states, 55)
    assert [int(path.stem) for path in states.paths()] == [55, 50]


@pytest.mark.parametrize(
    ("days", "goes_on", "left"), [(1, False, True), (40, False, False), (40, True, True)]
)
def test_checkpoints_that_nobody_came_back_to_go_after_a_month(
    days, goes_on, left, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    other = checkpoints("1")
    save(other, 5)
    folder, long_ago = other.paths()[0].parent, time.time() - days * 24 * 3600
    for old in (folder / "lock", folder):
        os.utime(old, (long_ago, long_ago))
    if goes_on:
        save(other, 6)
    checkpoints("0").remove()
    assert folder.exists() is left


HOLDER = """
import sys, time
from pathlib import Path
from rissole.harness import lock
lock.hold(Path("lock"), "it")
print("held", flush=True)
time.sleep(100)
"""


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "stages")}
    words = [sys.executable, "-c", HOLDER]
    holder = subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "held\n"
    told = f"process {holder.pid} of {socket.gethostname()} is at it.*`kill {holder.pid}`"
    with pytest.raises(InputError, match=told):
        lock.hold(Path("lock"), "it")
    holder.kill()
    holder.communicate()
    lock.hold(Path("lock"), "it")


# Which training goes on from a checkpoint: the name of its folder.


def fingerprint_of(words: str) -> str:
    """That of a stage's training, in the current folder; it ends before it begins."""
    script, *row = words.split()
    module = import_module(script)
    with mock.patch.object(module, "Checkpoints", side_effect=InterruptedError) as made:
        with suppress(InterruptedError):
            module.main(*row)
        return made.call_args.args[1]


@pytest.fixture
def project(clone, tmp_path):
    """A copy of the tiny project without DVC and git."""
    ignored = shutil.ignore_patterns(".git", ".dvc", "checkpoints")
    return shutil.copytree(clone[0], tmp_path / "project", ignore=ignored)


CHANGES = {
    "train_vqgan": ["+presets.quick.vqgan.learning_rate=0.002", "seed=7", "threads=2"],
    "train_ldm released": ["presets.quick.ldm.learning_rate=0.001", "seed=7", "threads=2"],
}


@pytest.mark.parametrize("words", CHANGES)
def test_another_training_begins_anew(words, project, monkeypatch):
    monkeypatch.chdir(project)
    params = (project / "params.yaml").read_text()

    def changed(change: str) -> str:
        (project / "params.yaml").write_text(params)
        apply_overrides(project / "params.yaml", [change])
        return fingerprint_of(words)

    names = {fingerprint_of(words), *map(changed, CHANGES[words])}
    assert len(names) == 1 + len(CHANGES[words])
    assert changed("checkpoint=1") in names and changed("presets.quick.sample.steps=4") in names


def test_a_training_goes_on_after_an_edit_of_docstrings(project, monkeypatch):
    monkeypatch.chdir(project)
    for path in (project / "stages/rissole").rglob("*.py"):
        path.write_text(path.read_text().replace('"""', '"""Edited. ', 1))
    words = "train_ldm released"
    script = f"import test_faults; print(test_faults.fingerprint_of('{words}'))"
    paths = os.pathsep.join([str(project / "stages"), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    program = [sys.executable, "-c", script]
    said = subprocess.run(program, env=environment, text=True, capture_output=True)
    assert said.stdout.split()[-1:] == [fingerprint_of(words)], said.stderr


# Trainings that diverge, disks that fill.


@pytest.mark.parametrize(
    ("words", "mend", "made"),
    [
        ("train_ldm released", "ldm.learning_rate is 0.003: lower it, or set ldm.clip", "data/ldm"),
        ("train_vqgan", "vqgan.learning_rate is 0.001: lower it", "data/vqgan"),
    ],
)
def test_a_training_that_diverges_says_when_and_what_to_change(
    words, mend, made, project, monkeypatch
):
    """Trained on numbers that overflow from step 11 on."""
    monkeypatch.chdir(project)
    shutil.rmtree(project / made)
    changes = [f"presets.quick.{of}.steps=20" for of in ("vqgan", "ldm")]
    apply_overrides(project / "params.yaml", [*changes, LEARNED_CODES])
    step, taken = descent.Descent.step, []

    def overflow(self, *rest):
        taken.append(step(self, *rest))
        if len(taken) == 10:
            self.weights.data.fill_(math.inf)

    monkeypatch.setattr(descent.Descent, "step", overflow)
    script, *row = words.split()
    said = f"params.yaml: {mend}: the training diverged, its loss is nan at step 11 of 20"
    with pytest.raises(InputError, match=re.escape(said)):
        import_module(script).main(*row)
    assert not (project / made).exists()


def test_a_disk_that_fills_while_an_index_is_written_is_named(tmp_path, monkeypatch):
    """ScaNN says nothing of why it failed."""

    class Torn:
        def serialize(self, folder, relative_path):
            Path(folder, "dataset.npy").write_bytes(b"half")
            raise RuntimeError("I/O error")

    monkeypatch.setattr(with_scann, "build", lambda *_: Torn())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("", (), {"free": 0}))
    with pytest.raises(InputError, match="latent/000000000000: the disk is full"):
        build_index(clustered(n=1000), tmp_path / "latent", "hashed")
    assert not list((tmp_path / "latent").rglob("*"))


FULL = """
mount -t tmpfs -o size={size} none {at} || exit 77
{command}
echo "exit $?"
find {at} -type f
echo "made room"
mount -o remount,size=200m {at}
{command} && find {at} -type f
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "at", "size", "made"),
    [
        ("train_ldm released", "checkpoints/train_ldm", "64k", None),
        ("sample_images released", "data/samples", "8k", "samples.parquet"),
    ],
)
def test_a_full_disk_is_named_and_nothing_half_written_is_left(words, at, size, made, project):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (`unshare -rm` is refused)")
    apply_overrides(project / "params.yaml", ["checkpoint=0.01"])
    shutil.rmtree(project / at, ignore_errors=True)
    (project / at).mkdir(parents=True)
    script, _, row = words.partition(" ")
    command = f"{sys.executable} stages/{script}.py {row}"
    full = FULL.format(size=size, at=at, command=command)
    namespace = ["unshare", "-rm", "sh", "-c", full]
    said = subprocess.run(namespace, cwd=project, text=True, capture_output=True)
    before, _, after = said.stdout.partition("made room")
    assert "exit 1" in before, said
    assert re.search("the disk is full: it needs more than .* MB were free in", said.stderr)
    assert "Traceback" not in said.stderr
    assert ".partial" not in before
    assert not made or (made not in before and made in after), said


# Real processes, real signals.


def begin(folder: Path, words: str) -> subprocess.Popen:
    script, *rest = words.split()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = [sys.executable, f"stages/{script}.py", *rest]
    return subprocess.Popen(program, cwd=folder, **pipes, start_new_session=True)


def ended(process: subprocess.Popen, code: int = 0) -> str:
    """What a process said, once it has ended as it should."""
    said = "".join(process.communicate(timeout=PATIENCE))
    assert process.returncode == code, said
    return said


def kill(process: subprocess.Popen) -> None:
    """End a process and all that it started, by a signal that none of them hears."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(true) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def saved(folder: Path, words: str) -> set[Path]:
    return set(folder.glob(f"checkpoints/{words.replace(' ', '/')}/*/*.safetensors"))


TRAININGS = {
    "train_vqgan": ["data/vqgan/vqgan.safetensors", "metrics/loss/vqgan.csv"],
    "train_ldm released": [
        "data/ldm/released/best.safetensors",
        "data/ldm/released/last.safetensors",
        "metrics/loss/released.csv",
    ],
}
LONG = [
    "threads=2",  # each works on a share of a denoiser's batch
    "checkpoint=0.3",
    LEARNED_CODES,
    "presets.quick.vqgan.steps=80",
    "+presets.quick.vqgan.adversarial_weight=0.1",
    "presets.quick.ldm.steps=120",
    "presets.quick.ldm.validations=5",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "number"), zip(TRAININGS, [signal.SIGINT, signal.SIGTERM], strict=True)
)
def test_a_training_killed_and_interrupted_goes_on_and_ends_bit_equal(words, number, project):
    """In two threads, with a discriminator, codes placed anew and all moving averages."""
    apply_overrides(project / "params.yaml", LONG)
    ended(begin(project, words))
    expected = {name: (project / name).read_bytes() for name in TRAININGS[words]}
    for name in TRAININGS[words]:
        (project / name).unlink()

    process = begin(project, words)
    wait_until(lambda: saved(project, words))
    kill(process)
    killed = saved(project, words)
    process = begin(project, words)
    wait_until(lambda: saved(project, words) - killed)
    process.send_signal(number)
    said = ended(process, 130)
    kept = max(saved(project, words)).relative_to(project)
    assert "going on from" in said
    assert re.search(f"stopped; .* is kept in {kept}; the same command goes on", said)
    assert not any((project / name).exists() for name in expected)

    assert f"going on from {kept}" in ended(begin(project, words))
    assert {name: (project / name).read_bytes() for name in expected} == expected
    assert not saved(project, words)


@pytest.mark.slow
def test_an_interrupted_stage_without_checkpoints_leaves_nothing(project):
    shutil.rmtree(project / "data/split")
    apply_overrides(project / "params.yaml", ["presets.quick.data.images=20000"])
    process = begin(project, "split_data")
    wait_until((project / "checkpoints/running/split_data.py.holder").exists)
    time.sleep(0.5)  # its workers are being started
    os.killpg(process.pid, signal.SIGINT)  # as ctrl-C does: its workers hear it too
    assert ended(process, 130) == "split_data.py: stopped; the same command goes on\n"
    assert not list(project.glob("data/split/*"))


@pytest.fixture
def copied(clone, tmp_path):
    """A copy of the tiny project, with DVC and git, whose trainings take longer."""
    folder = shutil.copytree(clone[0], tmp_path / "copied", symlinks=True)
    apply_overrides(folder / "params.yaml", ["presets.quick.ldm.steps=400", "checkpoint=0.3"])
    return folder


@pytest.mark.slow
def test_a_training_ends_with_dvc_and_goes_on_with_the_next(copied):
    """Of `kill -9` of DVC alone its child hears, though `sh` stands between, and saves."""
    words = ["dvc", "repro", "-s", "train_ldm@no_rag"]
    dvc = subprocess.Popen(words, cwd=copied, env=ENVIRONMENT | {"SHELL": "/bin/sh"})
    wait_until(lambda: saved(copied, "train_ldm no_rag"))
    (holder,) = copied.glob("checkpoints/train_ldm/no_rag/*/lock.holder")
    number = holder.read_text().split()[0]
    dvc.kill()
    dvc.wait()
    wait_until(lambda: not runs(number))
    kept = max(saved(copied, "train_ldm no_rag"))
    assert f"going on from {kept}" in run(copied, *words)


def runs(number: str) -> bool:
    """Whether a process is there, and no zombie whose parent has yet to hear of it."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_killed_experiment_in_a_copy_goes_on(copied):
    words = ["dvc", "exp", "run", "--temp", "train_ldm@no_rag"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    where = {"cwd": copied, "env": ENVIRONMENT, "start_new_session": True}
    process = subprocess.Popen(words, **where, **pipes)
    wait_until(lambda: saved(copied, "train_ldm no_rag"))
    kill(process)
    said = run(copied, *words)
    assert re.search("going on from .*/checkpoints/train_ldm/no_rag/", said), said
    assert not saved(copied, "train_ldm no_rag")


@pytest.mark.slow
def test_three_kills_of_the_whole_pipeline_change_nothing(clone, tmp_path):
    run(tmp_path, "git", "clone", "-q", str(clone[0]), "clone")
    words = [sys.executable, str(ROOT / "tests/kill_loop.py"), "--kills=3", "--mean=12"]
    *_, last = run(tmp_path / "clone", *words).splitlines()
    assert re.fullmatch(r"3 kills, \d+ outputs equal byte for byte, 0 scratch files", last)
