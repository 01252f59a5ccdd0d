"""What the README and its pages show is what is committed; its commands are those that CI runs."""

import json
import re
import subprocess
import sys
from functools import reduce

from committed import ROOT, committed

import pytest
import yaml

README = (ROOT / "README.md").read_text()
PAGES = {
    path: (ROOT / path).read_text()
    for path in ("README.md", "metrics/README.md", "metrics/speed.md", "tests/README.md")
}
SHOWN = "\n".join(PAGES.values())


@pytest.mark.parametrize("goal", ["dvc repro", "pytest"])
def test_one_line_sets_up_and_runs(goal):
    line = (
        r"python3\.11 -m venv \.venv && \. \.venv/bin/activate && pip install -r requirements\.txt"
    )
    assert len(re.findall(rf"^{line} && {goal}$", README, re.M)) == 1


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TABLES = [
    ("metrics", "# Scores"),
    ("metrics", "## What the numbers say"),
    ("metrics/ablations", "## What the numbers say"),
    ("metrics/ablations", "## Systems"),
    ("metrics/ablations", "## whole"),
    ("metrics/ablations", "## budget"),
    ("metrics/ablations", "## The paper's table 1"),
    ("metrics/published/anime_faces64", "## table_1"),
    ("metrics/published/anime_table1", "## table_1"),
    ("metrics/published/avatars_128", "## blocks"),
    ("metrics/published/avatars_256", "## blocks"),
    ("metrics/published/groups64", "## exclude"),
]


@pytest.mark.parametrize(("folder", "heading"), TABLES)
def test_a_table_is_the_committed_one_cell_by_cell(folder, heading):
    page = committed(f"{folder}/tables.md")
    section = page[page.index(f"{heading}\n") :].split("\n\n")[1]
    lines = [cells(line) for line in section.splitlines() if not line.startswith("|:")]
    shown = [cells(line) for line in SHOWN.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    shown = [line for line in shown if not line[0].startswith(":")]
    starts = [start for start, line in enumerate(shown) if line == lines[0]]
    assert lines in [shown[start : start + len(lines)] for start in starts]


def test_every_row_is_in_the_committed_table_once():
    table = [cells(line) for line in committed("metrics/tables.md").split("## ")[0].splitlines()]
    names = [line[0].strip("*") for line in table]
    rows = yaml.safe_load(committed("params.yaml"))["rows"]
    assert len(rows) > 9
    assert all(names.count(row) == 1 for row in rows)


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_heading_exists(page):
    for link, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", PAGES[page]):
        there = (ROOT / page).parent.joinpath(link) if link else ROOT / page
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
        assert heading in [re.sub(r"[^\w -]", "", of).lower().replace(" ", "-") for of in headings]


def test_every_stage_row_and_preset_is_explained():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = [path.stem for path in (ROOT / "stages").glob("*.py")]
    for name in [*stages, *params["rows"], *params["presets"]]:
        assert f"`{name}`" in README, name


def test_the_figures_of_speed_are_those_that_were_measured():
    measured = json.loads(committed("metrics/speed.json"))
    shown = re.findall(r"^\|[^|]+\| `([\w/]+)` \| ([\d.,]+) \|$", SHOWN, re.M)
    assert len(shown) > 10
    for path, figure in shown:
        value = reduce(lambda of, key: of[key], path.split("/"), measured)
        assert f"{value:,.{len(figure.partition('.')[2])}f}" == figure, path


def test_the_figures_of_two_processors_are_those_that_were_measured():
    both = [json.loads(committed(f"metrics/{name}.json")) for name in ("speed", "speed_single")]
    shown = re.findall(r"^\| `([\w/]+)` \| ([\d.,]+) \| ([\d.,]+) \|$", SHOWN, re.M)
    assert len(shown) == 8
    for path, *figures in shown:
        for figure, measured in zip(figures, both, strict=True):
            value = reduce(lambda of, key: of[key], path.split("/"), measured)
            assert f"{value:,.{len(figure.partition('.')[2])}f}" == figure, path


def test_the_plan_is_what_the_script_prints():
    script = [sys.executable, ROOT / "stages/plan_scale.py"]
    printed = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() in SHOWN
    assert printed.count("\n") > 10


def test_what_was_tried_and_what_memory_it_takes_is_what_was_measured():
    measured = json.loads(committed("metrics/speed.json"))
    lines = [cells(line) for line in SHOWN.splitlines() if line.startswith("|")]
    for name, of in measured["remedies"].items():
        figures = [f"{of[unit]:.2f}" if unit in of else "" for unit in ("train", "draw", "update")]
        assert [line[1:4] for line in lines if line[0] == name] == [figures]
    for stage, grown in measured["peak_memory_growth"].items():
        figures = [f"{measured['peak_memory_mb'][stage]:,.0f}", f"{100 * grown:+.0f} %"]
        assert [f"`{stage}`", *figures] in lines
    curves = measured["memory_per_image_sampled_mb"].values()
    for kind in ("whole", "block_by_block"):
        assert f"line [{', '.join(f'{of[kind]:.2f}' for of in curves)}]" in SHOWN


def test_the_kinds_of_index_are_as_they_were_measured():
    measured = json.loads(committed("metrics/search.json"))
    lines = [cells(line) for line in SHOWN.splitlines() if line.startswith("|")]
    for kind in measured["avatars"]["kinds"]:
        found = [
            measured[name]["kinds"][kind] for name in ("avatars", "photos64", "100000", "1000000")
        ]
        figures = [
            f"{of['recall_at_20']:.3f}, {of['queries_per_second']:,.0f}, {of['build_seconds']:g} s,"
            f" {of['bytes'] / 1e6:,.0f} MB"
            for of in found
        ]
        assert [kind, *figures] in lines


def test_what_drawing_costs_as_images_grow_is_as_it_was_measured():
    measured = json.loads(committed("metrics/resolution.json"))["pixels"]
    lines = [cells(line) for line in SHOWN.splitlines() if line.startswith("|")]
    for side, splits in measured.items():
        for split, of in splits.items():
            blocks = "whole" if split == "1" else f"{split} x {split}"
            milliseconds = [f"{1000 * of[f'seconds_{how}']:.1f}" for how in ("together", "in_turn")]
            mb = [f"{of[f'mb_{how}']:.2f}" for how in ("together", "in_turn")]
            assert [side, blocks, f"{of['gflop']:.2f}", *milliseconds, *mb] in lines


def test_what_is_retrieved_is_as_it_was_judged():
    found = json.loads(committed("metrics/retrieval_quality.json"))["by"]
    lines = [cells(line) for line in SHOWN.splitlines() if line.startswith("|")]
    for query, of in found.items():
        figures = [f"{x:.3f}" for x in (of["agreement"], of["by_rank"][0], of["by_rank"][-1])]
        label = [f"{of['precision']['label'][at]:.0%}" for at in ("at_1", "at_20", "chance")]
        assert [query, *figures, f"{of['skew']:.1f}", f"{of['largest_hub']:,}", *label] in lines
