"""What the README and its pages name is there: files, headings, stages, rows, presets, scripts."""

import re

from committed import ROOT

import pytest
import yaml

PAGES = {
    path: (ROOT / path).read_text()
    for path in ("README.md", "metrics/README.md", "metrics/speed.md", "tests/README.md")
}
README = PAGES["README.md"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_and_heading_exists(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGES[page])
    assert links
    for link, heading in links:
        there = (ROOT / page).parent / link if link else ROOT / page
        assert there.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", of).lower().replace(" ", "-") for of in headings]
            assert heading in slugs, heading


def test_every_stage_row_and_preset_is_explained():
    scripts = [path.stem for path in (ROOT / "stages").glob("*.py")]
    names = [*scripts, *PIPELINE, *PARAMS["rows"], *PARAMS["presets"]]
    assert [name for name in names if f"`{name}`" not in README] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_script_that_a_command_runs_exists(page):
    scripts = re.findall(r"python (?:-m )?((?:stages|tests)/[\w/]+\.py)", PAGES[page])
    assert [script for script in scripts if not (ROOT / script).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_stage_that_a_command_reproduces_exists(page):
    """Such as `dvc repro compute_fid@rissole` and `dvc repro stages/ablations/dvc.yaml`."""
    assert re.findall(r"dvc (?:repro|exp run)", README)
    for stage, row in re.findall(r"\b(\w+)@(\w+)", PAGES[page]):
        if row in ("variant", "row", "NAME"):
            continue
        each = re.fullmatch(r"\$\{(\w+)\}", PIPELINE[stage]["foreach"])[1]
        assert row in PARAMS[each], f"{stage}@{row}"
    for path in re.findall(r"dvc repro ([\w/]+\.yaml)", PAGES[page]):
        assert (ROOT / path).exists(), path


def test_every_key_that_a_command_sets_exists():
    sections = PARAMS["defaults"]
    for added, key in re.findall(r"-S ['\"]?(\+?)([\w.]+)=", README):
        name, _, rest = key.partition(".")
        if added:
            assert rest in sections[name], key
        else:
            assert key in PARAMS or rest in sections.get(name, {}), key


def test_the_folders_of_the_package_are_those_that_are_listed():
    packages = {path.parent.name for path in (ROOT / "stages/rissole").glob("*/__init__.py")}
    listed = re.findall(r"^    (\w+)/ ", README, re.M)
    assert set(listed) == packages
