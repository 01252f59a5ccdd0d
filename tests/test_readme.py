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


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.mark.parametrize("heading", ["# Scores", "## What the numbers say"])
def test_a_table_is_the_committed_one_cell_by_cell(heading):
    page = committed("metrics/tables.md")
    section = page[page.index(f"{heading}\n") :].split("\n\n")[1]
    lines = [cells(line) for line in section.splitlines() if not line.startswith("|:")]
    shown = [cells(line) for line in README.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    start = shown.index(lines[0])
    assert [line for line in shown[start:] if not line[0].startswith(":")][: len(lines)] == lines


def test_every_row_is_in_the_committed_table_once():
    table = [cells(line) for line in committed("metrics/tables.md").split("## ")[0].splitlines()]
    names = [line[0].strip("*") for line in table]
    rows = yaml.safe_load(committed("params.yaml"))["rows"]
    assert len(rows) > 9
    assert all(names.count(row) == 1 for row in rows)


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_stage_row_and_preset_is_explained():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = [path.stem for path in (ROOT / "stages").glob("*.py")]
    for name in [*stages, *params["rows"], *params["presets"]]:
        assert f"`{name}`" in README, name
