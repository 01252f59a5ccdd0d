"""Nothing is unpickled, run or fetched that a user could have got from somebody else."""

import ast
import os
import pickle
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from rissole.core import config, files
from rissole.core.training_run import TrainingRun
from rissole.first_stage import losses
from rissole.harness import checkpoints, signals
from rissole.harness.errors import InputError
from rissole.judging import judges
from rissole.pretrained import weights
from rissole.retrieval import index, with_scann
from test_retrieval import build, clustered
from tiny import ENVIRONMENT, OFFLINE_LOG, ROOT, run

import pytest
import torch

SOURCES = [*(ROOT / "stages").rglob("*.py")]


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """A path at which there must be nothing in the end."""
    yield tmp_path / "run"
    assert not (tmp_path / "run").exists()


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "run")))
    assert (tmp_path / "run").exists()


UNPICKLED = []  # classes and functions, while somebody listens
LISTENS = []


def _hear(event: str, arguments: tuple) -> None:
    if LISTENS and event == "pickle.find_class":
        UNPICKLED.append(arguments)


sys.addaudithook(_hear)  # for good: Python knows no way to take one back


@pytest.fixture
def no_pickle():
    """Whatever is unpickled in this process fails the test."""
    LISTENS.append(True)
    UNPICKLED.clear()
    yield
    LISTENS.clear()
    assert UNPICKLED == []


def test_unpickling_is_heard():
    LISTENS.append(True)
    pickle.loads(pickle.dumps(Path("a")))
    LISTENS.clear()
    assert UNPICKLED


READERS = """train_vqgan; encode_latents; build_index; retrieve_neighbours main; build_reference
train_ldm released; sample_images released; compute_fid released; score_controls; judge_retrieval
make_tables; make_report; trace_sample released 3"""


@pytest.mark.slow
def test_no_stage_unpickles_what_another_wrote(clone, tmp_path, monkeypatch, no_pickle):
    folder = shutil.copytree(
        clone[0], tmp_path / "project", ignore=shutil.ignore_patterns(".dvc", ".git")
    )
    monkeypatch.chdir(folder)
    for words in READERS.replace("\n", ";").split(";"):
        script, *rest = words.split()
        import_module(script).main(*rest)


@pytest.mark.skipif(not with_scann.installed(), reason="ScaNN is not installed here")
def test_an_index_is_opened_without_pickle(tmp_path, no_pickle):
    build(clustered(n=2000), tmp_path / "latent", "hashed")


@pytest.mark.skipif(not with_scann.installed(), reason="ScaNN is not installed here")
def test_ids_planted_beside_an_index_are_not_unpickled(tmp_path, mark, bad_inputs):
    """ScaNN unpickles a file of that name wherever it finds one."""
    vectors = clustered(n=2000)
    build(vectors, tmp_path / "latent", "hashed")
    (part,) = (tmp_path / "latent").glob("*/")
    (part / "scann_docids.pkl").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(InputError, match="not the part that index.json names"):
        index.open(tmp_path / "latent", vectors)
    bad_inputs.add(("planted", "scann_docids.pkl"))


@pytest.mark.parametrize("name", ["a.safetensors", "a.parquet", "a.json"])
def test_a_planted_pickle_is_not_taken_for_one_of_our_files(name, tmp_path, mark, bad_inputs):
    path = tmp_path / name
    torch.save({"weights": Trap(mark)}, path)
    read = {"safetensors": files.read_tensors, "parquet": files.read_table, "json": files.read_json}
    with pytest.raises(InputError, match=name):
        read[path.suffix[1:]](path)
    bad_inputs.add(("planted", name))


def test_a_planted_state_is_not_gone_on_from(tmp_path, monkeypatch, mark, capsys, bad_inputs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signals, "wait_for_checkpoint", lambda: None)
    states = checkpoints.Checkpoints("train_ldm/rissole", "0" * 64, 300, first=True, alone=True)
    planted = tmp_path / "checkpoints/train_ldm/rissole" / ("0" * 16) / "000000009.safetensors"
    torch.save({"x": Trap(mark)}, planted)
    learner = SimpleNamespace(load=lambda *state: pytest.fail("was gone on from"))
    TrainingRun(learner, states, ["loss"], 10, tmp_path / "loss.csv", "lower the rate")
    assert "000000009.safetensors: cannot be read" in capsys.readouterr().err
    states.remove()
    bad_inputs.add(("planted", "checkpoint"))


@pytest.mark.parametrize("reader", ["judge", "perceptual", "weights"])
def test_code_in_given_weights_is_not_run(reader, tmp_path, mark, monkeypatch, bad_inputs):
    path = tmp_path / "given.pth"
    torch.save({"weights": Trap(mark)}, path)
    monkeypatch.setattr(judges, "INCEPTION", files.digest(path)[:8])
    read = {"judge": judges._inception, "perceptual": losses._weights, "weights": weights.read}
    with pytest.raises(InputError, match="given.pth: cannot be read as weights alone"):
        read[reader](path)
    bad_inputs.add(("planted", reader))


@pytest.mark.parametrize(
    "text",
    [
        "k: !!python/object/apply:os.system ['touch {mark}']",
        "? !!python/object/apply:os.system ['touch {mark}']\n: 1",
    ],
)
def test_code_in_params_is_not_run(text, tmp_path, mark, bad_inputs):
    (tmp_path / "params.yaml").write_text(text.format(mark=mark))
    with pytest.raises(InputError, match=r"params\.yaml: not valid YAML"):
        config.read(tmp_path / "params.yaml")
    bad_inputs.add(("planted", text))


def imported(path: Path) -> set[str]:
    """The modules that a source names in its imports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def test_nothing_of_ours_fetches_unpacks_or_unpickles():
    """No download, no archive: there is nothing to check a digest of, or to leave a folder by."""
    closed = {"urllib.request", "http", "requests", "socket", "ftplib", "tarfile", "zipfile"}
    closed |= {"shelve", "marshal", "pickle"}
    for path in SOURCES:
        named = {name for name in imported(path) if name}
        assert not {name for name in named if name in closed or name.split(".")[0] in closed}, path
        text = path.read_text("utf-8")
        assert "yaml.load(" not in text or "_Loader(yaml.SafeLoader)" in text, path
        assert "weights_only=False" not in text and "unpack_archive" not in text, path


@pytest.mark.slow
def test_the_pipeline_reaches_for_no_network(clone):
    """Every process of the tiny project had its sockets taken away, DVC among them."""
    probe = "import socket; socket.create_connection(('example.org', 80))"
    failed = subprocess.run(
        [sys.executable, "-c", probe],
        env=ENVIRONMENT | {"OFFLINE_LOG": str(clone[0].parent / "probe")},
        capture_output=True,
        text=True,
    )
    assert "no network here" in failed.stderr
    assert (clone[0].parent / "probe").read_text() == "look up example.org\n"
    assert not OFFLINE_LOG.exists(), OFFLINE_LOG.read_text()


def test_dvc_sends_no_figures_of_its_use():
    assert "analytics = false" in (ROOT / ".dvc/config").read_text()


def test_every_licence_is_known_and_free():
    said = subprocess.run(
        [sys.executable, ROOT / "tests/licences.py"], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert len(said.stdout.splitlines()) > 100


@pytest.mark.slow
def test_a_moved_project_with_its_data_is_as_it_was(clone, tmp_path):
    """At another path, with cache and data; the absolute paths of the first are gone."""
    folder = tmp_path / "else where"
    shutil.copytree(clone[0], folder, symlinks=True)
    assert "up to date" in run(folder, "dvc", "repro")
    said = run(folder, sys.executable, "stages/trace_sample.py", "released", "5")
    assert "drawn again, equal bit by bit" in said


READ_ONLY = """
for folder in data/vqgan data/latents data/neighbours data/ldm data/reference; do
  mount --bind $folder $folder && mount -o remount,ro,bind $folder || exit 77
done
touch data/ldm/x && exit 78
set -e
{python} stages/sample_images.py released
{python} stages/compute_fid.py released
"""


@pytest.mark.slow
def test_inputs_that_cannot_be_written_to_are_enough_to_draw_and_score(clone, tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted read-only here (`unshare -rm` is refused)")
    folder = shutil.copytree(clone[0], tmp_path / "project", symlinks=True)
    before = (folder / "metrics/fid/released.json").read_bytes()
    said = run(folder, "unshare", "-rm", "sh", "-c", READ_ONLY.format(python=sys.executable))
    assert "Read-only file system" in said
    assert (folder / "metrics/fid/released.json").read_bytes() == before
