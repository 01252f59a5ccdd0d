"""How stages run: seeds that do not collide, errors in one line, command lines and progress."""

import json
import re
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

from rissole.core import numerics
from rissole.harness import progress, run

import pytest
import torch

STAGES = Path(__file__).parents[1] / "stages"
SCRIPTS = sorted(path.stem for path in STAGES.glob("*.py"))


def python(code: str) -> str:
    words, path = [sys.executable, "-c", code], {"PYTHONPATH": str(STAGES)}
    return subprocess.run(words, env=path, text=True, check=True, capture_output=True).stdout


def test_seeds_of_different_words_differ():
    words = [w for n in range(4) for w in product(range(6), repeat=n)]
    assert len({numerics.seeded(*w) for w in words}) == len(words)


def test_a_seed_is_the_same_in_every_process():
    code = "from rissole.core import numerics; print(numerics.seeded(3, 1, 4))"
    assert int(python(code)) == numerics.seeded(3, 1, 4)


@pytest.mark.parametrize("matrices", [True, False])
def test_a_cpu_works_in_bf16_where_it_multiplies_matrices_of_it(matrices, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrices)
    with numerics.autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if matrices else torch.float32)


FREED = """
import resource
from rissole.core import numerics
numerics.set_up(1)
import torch

def faults():
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of Linux")
def test_the_memory_of_a_tensor_serves_the_next_one():
    assert int(python(FREED)) < 2**14  # pages of 4 KiB in 64 MiB


def test_a_user_s_mistake_ends_a_stage_with_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("sed: 1\n")
    done = subprocess.run(
        [sys.executable, STAGES / "split_data.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "split_data.py: params.yaml: sed: no such key; did you mean 'seed'?\n"


def test_a_stage_leaves_how_long_it_took_and_fails_not_where_it_cannot(
    tmp_path, monkeypatch, capsys
):
    def main(word: str) -> None:
        print(word)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["split_data.py", "a/b"])
    monkeypatch.setattr(run.signals, "listen", lambda: None)
    Path("params.yaml").write_text("seed: 1\n")
    run.run(main)
    (left,) = Path("checkpoints/seconds").iterdir()
    assert left.name.endswith(" a%2Fb.json")
    assert json.loads(left.read_text())["seconds"] > 0
    left.unlink()
    left.parent.rmdir()
    left.parent.touch()  # no folder can be made there
    monkeypatch.setattr(sys, "argv", ["split_data.py", "c"])
    run.run(main)
    assert capsys.readouterr().out == "a/b\nc\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_a_stage_reads_and_writes_how_to_call_it_and_what_each_word_is(script):
    parser = run.command_line(import_module(script).main)
    assert parser.prog == f"{script}.py"
    assert re.search("(data|metrics)/|Not a stage", parser.description)
    assert re.search(rf"^    python stages/{script}.py", parser.description, re.MULTILINE)
    assert all(action.help for action in parser._actions)


def test_a_log_gets_whole_lines_of_progress(capsys):
    """What a terminal would redraw becomes a line of its own; blank redrawings are left out."""
    log = progress._Lines()
    for text in ("\rtrain:  10%", "\r", "\rtrain:  20%\n"):
        log.write(text)
    assert capsys.readouterr().err == "train:  10%\ntrain:  20%\n"


@pytest.mark.parametrize(
    ("script", "words", "named"),
    [
        ("split_data", [], "split_data"),
        ("train_ldm", ["rissole"], "train_ldm@rissole"),
        ("train_ldm", ["ablations/pixel/1"], "stages/ablations/dvc.yaml:train_ldm@pixel"),
        ("make_published_tables", ["photos64"], None),
    ],
)
def test_who_calls_a_stage_by_hand_is_told_how_dvc_takes_it(
    script, words, named, monkeypatch, capsys
):
    monkeypatch.chdir(STAGES.parent)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    run._say_what_follows(f"{script}.py", words)
    told = re.match(r"next: `dvc commit (\S+)` ", capsys.readouterr().out)
    assert (told and told[1]) == named


def test_a_command_line_follows_from_the_parameters_of_main(tmp_path, monkeypatch):
    (tmp_path / "some_stage.py").write_text(
        '"""Do it."""\ndef main(row: str, part: str | None = None, quick: bool = False): ...\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    parser = run.command_line(import_module("some_stage").main)
    assert vars(parser.parse_args(["a"])) == {"row": "a", "part": None, "quick": False}
    given = parser.parse_args(["a", "--part", "1/2", "--quick"])
    assert vars(given) == {"row": "a", "part": "1/2", "quick": True}
    assert parser.description == "Do it."
    with pytest.raises(SystemExit):
        parser.parse_args([])
