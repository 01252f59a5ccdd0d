"""How stages run: seeds that do not collide, errors in one line, rates and rows."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

from rissole.ground import command, runtime

import pytest
import torch
from dvc.repo import Repo

STAGES = Path(__file__).parents[1] / "stages"


def test_seeds_of_different_words_differ():
    words = [w for n in range(4) for w in product(range(6), repeat=n)]
    assert len({runtime.seeded(*w) for w in words}) == len(words)


def test_a_seed_is_the_same_in_every_process():
    code = "from rissole.ground import runtime; print(runtime.seeded(3, 1, 4))"
    outputs = [subprocess.check_output([sys.executable, "-c", code], cwd=STAGES) for _ in range(2)]
    assert [int(output) for output in outputs] == [runtime.seeded(3, 1, 4)] * 2


@pytest.mark.parametrize("matrices", [True, False])
def test_a_cpu_works_in_bf16_where_it_multiplies_matrices_of_it(matrices, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrices)
    with runtime.autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if matrices else torch.float32)


FREED = """
import resource
from rissole.ground import runtime
runtime.set_up(1)
import torch

def faults():
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of Linux")
def test_the_memory_of_a_tensor_serves_the_next_one():
    words, path = [sys.executable, "-c", FREED], {"PYTHONPATH": str(STAGES)}
    done = subprocess.run(words, env=path, text=True, check=True, capture_output=True)
    assert int(done.stdout) < 2**14  # pages of 4 KiB in 64 MiB


def test_a_user_s_mistake_ends_a_stage_with_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("sed: 1\n")
    done = subprocess.run(
        [sys.executable, STAGES / "split_data.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "split_data.py: params.yaml: sed: no such key; did you mean 'seed'?\n"


def test_a_stage_leaves_how_long_it_took_and_fails_not_where_it_cannot(tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(
        """import time
from rissole.ground import runtime

def main(word):
    time.sleep(0.2)

if __name__ == "__main__":
    runtime.run(main)
"""
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/checkpoints").mkdir()
    (tmp_path / "sub/checkpoints/seconds").touch()  # no folder can be made there
    for folder in (tmp_path, tmp_path / "sub"):
        words, path = [sys.executable, script, "a/b"], {"PYTHONPATH": str(STAGES)}
        subprocess.run(words, cwd=folder, env=path, check=True)
    left = tmp_path / "checkpoints/seconds/wait.py a%2Fb.json"
    assert 0.2 < json.loads(left.read_text())["seconds"] < 2


@pytest.mark.parametrize("stage", sorted(path.name for path in STAGES.glob("*.py")))
def test_help_says_what_a_stage_reads_and_writes_or_that_it_is_none(stage, capsys, monkeypatch):
    import runpy

    monkeypatch.setattr(sys, "argv", [stage, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(STAGES / stage), run_name="__main__")
    assert end.value.code == 0
    assert re.search("(data|metrics)/|Not a stage", capsys.readouterr().out)


def test_a_log_gets_whole_lines_of_progress(capsys):
    """What a terminal would redraw becomes a line of its own; blank redrawings are left out."""
    log = runtime._Lines()
    for text in ("\rtrain:  10%", "\r", "\rtrain:  20%\n"):
        log.write(text)
    assert capsys.readouterr().err == "train:  10%\ntrain:  20%\n"


def test_a_log_gets_no_line_twice():
    """Else tqdm's watch, which looks every ten seconds, writes the last one again."""
    bar = runtime.progress([], "train", "images")
    assert bar.maxinterval > bar.mininterval + 10


@pytest.mark.parametrize(
    ("script", "words", "address"),
    [
        ("split_data", [], "split_data"),
        ("train_ldm", ["rissole"], "train_ldm@rissole"),
        ("train_ldm", ["ablations/pixel"], "stages/ablations/train_ldm/dvc.yaml:train_ldm@pixel"),
        ("make_published_tables", ["photos64"], None),
        ("trace_sample", ["rissole", "3"], None),
    ],
)
def test_who_calls_a_stage_by_hand_is_told_how_dvc_takes_it(script, words, address, monkeypatch):
    monkeypatch.chdir(STAGES.parent)
    said = command.following(STAGES / f"{script}.py", words)
    named = re.match(r"next: `dvc commit (\S+)` ", said)
    assert (named and named[1]) == address
    with Repo(STAGES.parent) as repo:
        assert address in {None, *(stage.addressing for stage in repo.index.stages)}


@pytest.mark.parametrize("stage", sorted(path.name for path in STAGES.glob("*.py")))
def test_help_ends_with_examples_that_name_the_script(stage):
    described = command.parser(STAGES / stage).format_help()
    assert re.search(rf"^    python stages/{stage}", described, re.M)


@pytest.mark.parametrize("stage", sorted(path.name for path in STAGES.glob("*.py")))
def test_help_says_what_every_word_is(stage):
    described = command.parser(STAGES / stage).format_help()
    listed = described[re.search("^(positional arguments|options):", described, re.M).start() :]
    assert not re.findall(r"^  (\S+|--\S+ \S+)$", listed, re.M)


def test_help_does_not_wait_for_torch():
    for script in sorted(STAGES.glob("*.py")):
        words = [sys.executable, "-S", script, "--help"]  # no packages but Python's own
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {script.name}")


def test_a_command_line_follows_from_the_parameters_of_main(tmp_path):
    (tmp_path / "stage.py").write_text(
        '"""Do it."""\ndef main(row: str, part: str | None = None, quick: bool = False): ...\n'
    )
    parser = command.parser(tmp_path / "stage.py")
    assert vars(parser.parse_args(["a"])) == {"row": "a", "part": None, "quick": False}
    given = parser.parse_args(["a", "--part", "1/2", "--quick"])
    assert vars(given) == {"row": "a", "part": "1/2", "quick": True}
    assert parser.description == "Do it."
    with pytest.raises(SystemExit):
        parser.parse_args([])
