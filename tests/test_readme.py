"""What the README shows is what is committed, and its commands are those that CI runs."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def committed(name: str) -> str:
    """A file as it was last committed, whatever a run has made of it since."""
    done = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("goal", ["dvc repro", "pytest"])
def test_one_line_sets_up_and_runs(goal):
    line = (
        r"python3\.11 -m venv \.venv && \. \.venv/bin/activate && pip install -r requirements\.txt"
    )
    assert len(re.findall(rf"^{line} && {goal}$", README, re.M)) == 1


def test_the_table_is_the_committed_one():
    table = [line for line in committed("metrics/tables.md").split("\n") if line.startswith("| ")]
    rows = yaml.safe_load(committed("params.yaml"))["variants"]
    assert len(rows) > 9
    for row in rows:
        (line,) = [line for line in table if re.match(rf"\| {row} ", line)]
        assert " ".join(line.split()) in " ".join(README.split())


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_stage_row_and_preset_is_explained():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = [path.stem for path in (ROOT / "stages").glob("*.py")]
    for name in [*stages, *params["variants"], *params["presets"]]:
        assert f"`{name}`" in README, name
