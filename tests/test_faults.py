"""Kills, signals, full disks, broken states, diverging trainings: real processes, real signals."""

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from kill_loop import outputs
from rissole.ground import checkpoints, course, descent, lock
from rissole.ground.errors import InputError
from rissole.retrieval import with_scann
from test_retrieval import build, clustered
from tiny import ENVIRONMENT, ROOT, TINY, run

import pytest
import torch
from dvc.utils.hydra import apply_overrides

STEPS = 250  # about five seconds
SETTINGS = TINY | {
    "checkpoint": 0.3,
    "presets.quick.vqgan.steps": STEPS,
    "+presets.quick.vqgan.adversarial_weight": 0.1,
    "+presets.quick.vqgan.quantiser": (
        "{kind: vq, codes: 32, channels: 3, decay: 0.9, commitment: 0.25, restart: 0.1}"
    ),
    "presets.quick.ldm.steps": STEPS,
    "presets.quick.ldm.validations": 5,
}
TRAININGS = ["train_vqgan", "train_ldm rissole"]
MADE = {
    "train_vqgan": ["data/vqgan/vqgan.safetensors", "metrics/loss/vqgan.csv"],
    "train_ldm rissole": [
        "data/ldm/rissole/best.safetensors",
        "data/ldm/rissole/last.safetensors",
        "metrics/loss/rissole.csv",
    ],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A project in which everything up to the denoiser was made without a disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(ROOT / "params.yaml", folder)
    apply_overrides(folder / "params.yaml", [f"{key}={of}" for key, of in SETTINGS.items()])
    for words in ("split_data", "train_vqgan", "encode_latents", "embed_images", "build_index"):
        ended(begin(folder, words))
    ended(begin(folder, "retrieve_neighbours main"))
    ended(begin(folder, "train_ldm rissole"))
    return folder


@pytest.fixture
def project(undisturbed, tmp_path):
    """The same, its trainings yet to run again."""
    folder = tmp_path / "project"
    shutil.copytree(undisturbed, folder)
    for made in ("data/ldm", "data/vqgan", "metrics/loss", "checkpoints"):
        shutil.rmtree(folder / made)
    return folder


def begin(folder: Path, words: str, *launcher: str, **environment: str) -> subprocess.Popen:
    script, *rest = words.split()
    return subprocess.Popen(
        [*launcher, sys.executable, ROOT / f"stages/{script}.py", *rest],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        start_new_session=True,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    """What a process said, once it has ended as it should."""
    said = "".join(process.communicate(timeout=100))
    assert process.returncode == code, said
    return said


def states_of(folder: Path, words: str) -> list[Path]:
    return sorted(folder.glob(f"checkpoints/{words.replace(' ', '/')}/*/*.safetensors"))


def state_of(folder: Path, words: str, count: int = 1, besides: list[Path] = ()) -> list[Path]:
    """The states of a training, once there are so many besides some."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        states = states_of(folder, words)
        if len(set(states) - set(besides)) >= count:
            return states
        time.sleep(0.02)
    raise AssertionError(f"{words} kept no state")


def same(words: str, one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in MADE[words])


@pytest.mark.parametrize("words", TRAININGS)
def test_a_killed_training_goes_on_and_ends_bit_equal(words, project, undisturbed):
    """With a discriminator, restarted codes and all moving averages."""
    for _ in range(2):
        before = states_of(project, words)
        process = begin(project, words)
        state_of(project, words, besides=before)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not any((project / name).exists() for name in MADE[words])
    assert "going on from" in ended(begin(project, words))
    assert same(words, project, undisturbed)
    assert not list(project.glob(f"checkpoints/{words.replace(' ', '/')}/*"))


@pytest.mark.parametrize(
    ("words", "number"), zip(TRAININGS, [signal.SIGTERM, signal.SIGINT], strict=True)
)
def test_an_interrupted_training_keeps_its_state_within_five_seconds(words, number, project):
    process = begin(project, words)
    state_of(project, words)
    clock = time.monotonic()
    process.send_signal(number)
    said = ended(process, 130)
    assert time.monotonic() - clock < 5
    kept = state_of(project, words)[-1]
    assert f"is kept in {kept.relative_to(project)}; the same command goes on" in said
    assert f"going on from {kept.relative_to(project)}" in ended(begin(project, words))


def test_an_interrupted_stage_without_states_ends_at_once_and_leaves_nothing(project):
    shutil.rmtree(project / "data/split")
    apply_overrides(project / "params.yaml", ["presets.quick.data.images=20000"])
    process = begin(project, "split_data")
    lock, deadline = project / "checkpoints/running/split_data.py.lock", time.monotonic() + 60
    while not lock.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # its workers are being started
    clock = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as ctrl-C does: its workers hear it too
    assert ended(process, 130) == "split_data.py: stopped; the same command goes on\n"
    assert time.monotonic() - clock < 5
    assert not list(project.glob("data/split/*"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_broken_state_is_found_out_and_the_one_before_it_used(damage, project, undisturbed):
    words = "train_ldm rissole"
    process = begin(project, words)
    state_of(project, words, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    *_, older, newer = states_of(project, words)
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1
    size = {"truncated": len(content) // 2, "flipped": len(content), "empty": 0}[damage]
    newer.write_bytes(content[:size])
    said = ended(begin(project, words))
    assert f"{newer.relative_to(project)}: cannot be read" in said
    assert f"going on from {older.relative_to(project)}" in said
    assert same(words, project, undisturbed)


CHANGES = [
    ("train_ldm rissole", "presets.quick.ldm.learning_rate=0.001"),
    ("train_ldm rissole", "seed=7"),
    ("train_ldm rissole", "threads=2"),
    ("train_vqgan", "+presets.quick.vqgan.learning_rate=0.002"),
    ("train_vqgan", "seed=7"),
]


@pytest.mark.parametrize(("words", "change"), CHANGES)
def test_another_training_begins_anew(words, change, project):
    process = begin(project, words)
    state_of(project, words)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    apply_overrides(project / "params.yaml", [change])
    assert "going on from" not in ended(begin(project, words))


def test_a_second_process_of_a_training_is_refused_and_told_of_the_first(project):
    words = "train_ldm rissole"
    apply_overrides(project / "params.yaml", ["presets.quick.ldm.steps=100000"])
    process = begin(project, words)
    state_of(project, words)
    said = ended(begin(project, words), 1)
    assert f"process {process.pid} of {socket.gethostname()} is at `train_ldm.py rissole`" in said
    assert f"`kill {process.pid}`" in said
    process.terminate()
    ended(process, 130)


@pytest.fixture
def copied(clone, tmp_path):
    """A copy of the tiny project that a test may leave in any state."""
    return shutil.copytree(clone[0], tmp_path / "copied", symlinks=True)


def runs(number: str) -> bool:
    """Whether a process is there, and no zombie whose parent has yet to hear of it."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_training_ends_with_dvc_and_goes_on_with_the_next(copied, shell):
    """Of `kill -9` of DVC alone its child hears, and keeps its state; `sh` may stand between."""
    changes = ["presets.quick.ldm.steps=400", "checkpoint=0.3"]
    apply_overrides(copied / "params.yaml", changes)
    words = ["dvc", "repro", "-s", "train_ldm@no_rag"]
    environment = ENVIRONMENT | {"SHELL": shell}
    started = subprocess.Popen(words, cwd=copied, env=environment, text=True)
    (state, *_) = state_of(copied, "train_ldm no_rag")
    started.kill()
    started.wait()
    ends(state.parent)
    (*_, state) = states_of(copied, "train_ldm no_rag")
    assert f"going on from {state}" in run(copied, *words)


def ends(training: Path) -> None:
    """Wait until the process that keeps its states here has ended by itself."""
    number = (training / "lock").read_text().split()[0]
    deadline = time.monotonic() + 20
    while runs(number):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_variants_train_beside_each_other(copied):
    names = ["train_ldm@no_rag", "train_ldm@released"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [
        subprocess.Popen(["dvc", "repro", "-f", "-s", name], cwd=copied, env=ENVIRONMENT, **pipes)
        for name in names
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    before = (copied / "dvc.lock").read_text()
    assert "didn't change" in run(copied, "dvc", "repro", "-s", *names)
    assert (copied / "dvc.lock").read_text() == before


def test_the_same_pipeline_twice_at_once_is_made_once_and_whole(clone, tmp_path):
    """Two run at any time, until one gets through; the other gives way to it."""
    folder = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(clone[0]), str(folder))
    running, refused, through = {}, 0, False
    deadline = time.monotonic() + 1200
    try:
        while running or not through:
            assert time.monotonic() < deadline
            if len(running) < 2 and not through:
                log = tmp_path / f"{refused}-{len(running)}.log"
                with log.open("w") as file:
                    pipes = {"stdout": file, "stderr": subprocess.STDOUT}
                    words = {"args": ["dvc", "repro"], "cwd": folder, "env": ENVIRONMENT}
                    running[subprocess.Popen(**words, **pipes)] = log
            time.sleep(0.5)
            for process in [process for process in running if process.poll() is not None]:
                said = running.pop(process).read_text()
                through |= process.returncode == 0
                refused += process.returncode != 0
                busy = re.search("is busy|Unable to acquire lock", said)
                assert not process.returncode or busy, said
    finally:
        for process in running:
            process.kill()
    assert refused
    assert outputs(folder / "dvc.lock") == outputs(clone[0] / "dvc.lock")
    assert "up to date" in run(folder, "dvc", "repro")


LONGER = ["-S", "presets.quick.ldm.steps=400", "-S", "checkpoint=0.3"]


def test_a_killed_experiment_in_a_copy_goes_on(copied):
    words = ["dvc", "exp", "run", "--temp", *LONGER]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    where = {"cwd": copied, "env": ENVIRONMENT, "start_new_session": True}
    started = subprocess.Popen(words, **where, **pipes)
    state_of(copied, "train_ldm no_rag")
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    said = run(copied, *words)
    assert re.search("going on from .*/checkpoints/train_ldm/no_rag/", said), said
    assert not states_of(copied, "train_ldm no_rag")


def test_a_killed_task_of_the_queue_goes_on_in_another(copied):
    deaf = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # else kept open

    def queue(name: str) -> None:
        run(copied, "dvc", "exp", "run", "--queue", f"--name={name}", *LONGER)
        subprocess.run(["dvc", "queue", "start"], cwd=copied, env=ENVIRONMENT, check=True, **deaf)

    try:
        queue("first")
        (state, *_) = state_of(copied, "train_ldm no_rag")
        run(copied, "dvc", "queue", "kill", "--force", "first")
        ends(state.parent)
        queue("second")
        deadline = time.monotonic() + 300
        while "Success" not in run(copied, "dvc", "queue", "status"):
            assert time.monotonic() < deadline, run(copied, "dvc", "queue", "logs", "second")
            time.sleep(1)
        said = run(copied, "dvc", "queue", "logs", "second")
    finally:
        run(copied, "dvc", "queue", "stop", "--kill")
    assert f"going on from {state.parent}" in said
    assert not states_of(copied, "train_ldm no_rag")


def test_three_kills_of_the_whole_pipeline_change_nothing(clone, tmp_path):
    folder = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(clone[0]), str(folder))
    said = run(folder, sys.executable, str(ROOT / "tests/kill_loop.py"), "--kills=3", "--mean=12")
    assert "3 kills" in said.splitlines()[-1]
    assert "outputs equal byte for byte, 0 scratch files" in said.splitlines()[-1]


FULL = """
mount -t tmpfs -o size={size} none {at} || exit 77
{python} {stage} {row}
echo "exit $?"
find {at} -type f
echo "made room"
mount -o remount,size=200m,nr_inodes=9999 {at}
{python} {stage} {row} && find {at} -type f
"""


@pytest.mark.parametrize(
    ("words", "at", "size", "made"),
    [
        ("split_data", "data/split", "16k", "train-00000.parquet"),
        ("encode_latents", "data/latents", "4k", "codebook.safetensors"),
        ("retrieve_neighbours main", "data/neighbours", "4k", "queries.parquet"),
        ("train_ldm rissole", "data/ldm", "64k", "best.safetensors"),
        ("train_ldm rissole", "checkpoints/train_ldm", "64k", None),
        ("sample_images rissole", "data/samples", "8k", "samples.parquet"),
        ("sample_images rissole", "metrics/grids", "4k", "rissole.png"),
        ("sample_images rissole", "checkpoints/running", "4k,nr_inodes=1", None),
    ],
)
def test_a_full_disk_is_named_and_nothing_half_written_is_left(
    words, at, size, made, undisturbed, tmp_path
):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (`unshare -rm` is refused)")
    folder = tmp_path / "project"
    shutil.copytree(undisturbed, folder)
    shutil.rmtree(folder / at, ignore_errors=True)
    (folder / at).mkdir(parents=True)
    script, row = (words.split() + [""])[:2]
    said = subprocess.run(
        ["unshare", "-rm", "sh", "-c"]
        + [
            FULL.format(
                size=size, at=at, python=sys.executable, stage=ROOT / f"stages/{script}.py", row=row
            )
        ],
        cwd=folder,
        text=True,
        capture_output=True,
    )
    before, _, after = said.stdout.partition("made room")
    assert "exit 1" in before, said
    assert (
        "the disk is full: it needs more than" in said.stderr and "MB were free in" in said.stderr
    )
    assert "Traceback" not in said.stderr
    assert not made or made not in before
    assert ".partial" not in before
    assert not made or made in after, said


@pytest.mark.parametrize(
    ("words", "mend", "made"),
    [
        ("train_ldm rissole", "ldm.learning_rate is 0.002: lower it, or set ldm.clip", "data/ldm"),
        ("train_vqgan", "vqgan.learning_rate is 0.001: lower it", "data/vqgan"),
    ],
)
def test_a_training_that_diverges_says_when_and_what_to_change(
    words, mend, made, project, monkeypatch
):
    """Trained on numbers that overflow from step 31 on."""
    monkeypatch.chdir(project)
    step, taken = descent.Descent.step, []

    def overflow(self, loss, *rest):
        taken.append(step(self, loss, *rest))
        if len(taken) == 30:
            self.weights.data.fill_(math.inf)

    monkeypatch.setattr(descent.Descent, "step", overflow)
    script, *row = words.split()
    said = f"params.yaml: {mend}: the training diverged, its loss is nan at step 31 of {STEPS}"
    with pytest.raises(InputError, match=re.escape(said)):
        import_module(script).main(*row)
    assert not (project / made).exists()
    assert len(taken) <= course.CHECKED


def test_broken_states_do_not_push_out_new_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints/train_ldm/row" / ("0" * 16)
    folder.mkdir(parents=True)
    for step in (50, 60):
        (folder / f"{step:09}.safetensors").write_bytes(b"torn")
    states = checkpoints.Checkpoints("train_ldm/row", "0" * 64, 1)
    assert states.newest() is None
    for step in (5, 7):
        states.save(step, {"x": torch.zeros(1)}, {"step": step})
    assert states.newest()[1] == {"step": 7}
    assert [int(path.stem) for path in sorted(folder.glob("*.safetensors"))] == [5, 7]
    states.remove()


@pytest.mark.parametrize(("days", "left"), [(1, True), (40, False)])
def test_states_that_nobody_came_back_to_go_after_a_month(days, left, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = checkpoints.Checkpoints("train_ldm/row", "1" * 64, 1)
    other.save(5, {"x": torch.zeros(1)}, {"step": 5})
    (folder,) = tmp_path.glob("checkpoints/train_ldm/row/*")
    long_ago = time.time() - days * 24 * 3600
    for old in (folder / "lock", folder):
        os.utime(old, (long_ago, long_ago))
    checkpoints.Checkpoints("train_ldm/row", "0" * 64, 1).remove()
    assert folder.exists() is left
    other.remove()


def test_the_state_of_a_training_that_began_long_ago_and_goes_on_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = checkpoints.Checkpoints("train_ldm/row", "1" * 64, 1)
    (folder,) = tmp_path.glob("checkpoints/train_ldm/row/*")
    long_ago = time.time() - 40 * 24 * 3600
    for old in (folder / "lock", folder):
        os.utime(old, (long_ago, long_ago))
    other.save(5, {"x": torch.zeros(1)}, {"step": 5})
    checkpoints.Checkpoints("train_ldm/row", "0" * 64, 1).remove()
    assert folder.exists()
    other.remove()


def test_a_lock_whose_holder_ends_at_that_moment_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    holder = lock.hold(path, "it")
    read = Path.read_text

    def ended(self, *words):
        if self.exists():
            path.unlink()
            lock.release(holder)
        return read(self, *words)

    monkeypatch.setattr(Path, "read_text", ended)
    ours = lock.hold(path, "it")
    assert ours is not None and path.exists()
    lock.release(ours)


def test_a_disk_that_fills_while_an_index_is_written_is_named(tmp_path, monkeypatch):
    """ScaNN says nothing of why it failed."""

    class Torn:
        def serialize(self, folder, relative_path):
            Path(folder, "dataset.npy").write_bytes(b"half")
            raise RuntimeError("I/O error")

    monkeypatch.setattr(with_scann, "build", lambda *_: Torn())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("", (), {"free": 0}))
    with pytest.raises(InputError, match="latent/000000000000: the disk is full"):
        build(clustered(n=1000), tmp_path / "latent", "hashed")
    assert not list((tmp_path / "latent").rglob("*"))
