"""What is published of other images: all of it measured on them, the page as the figures say."""

import json
import math
import shutil

import pytest
import yaml

from committed import ROOT
from rissole.ground import config, files
from rissole.ground.errors import InputError
from rissole.results import publication

PUBLISHED = sorted(path.parent for path in ROOT.glob("metrics/published/*/results.json"))


def unique(pairs: list[tuple]) -> dict:
    """A JSON object, none of whose keys stands twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def leaves(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield node


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_a_published_page_is_made_of_its_figures(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = json.loads((folder / "results.json").read_text())
    page = publication.page(folder.name, content, *publication.claimed())
    assert (folder / "tables.md").read_text() == page


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_what_is_published_is_whole_and_finite_and_names_what_it_was_measured_of(folder):
    content = json.loads((folder / "results.json").read_text(), object_pairs_hook=unique)
    assert all(math.isfinite(leaf) for leaf in leaves(content) if isinstance(leaf, int | float))
    rows = content["rows"].keys()
    assert {*content["main"], *sum(content["tables"].values(), [])} == rows
    for kind in ("fid", "audit", "ldm", "sampling"):
        assert content["results"][kind].keys() == rows
    digests = [*content["inputs"].values()]
    digests += [row[of] for row in content["rows"].values() for of in ("weights", "samples")]
    assert all(len(digest.partition(".")[0]) == 32 for digest in digests)
    assert content["machine"]["device"]


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_no_picture_and_no_place_on_someone_s_disk_is_published(folder):
    assert {path.name for path in folder.iterdir()} == {"results.json", "tables.md"}
    assert "root" not in json.loads((folder / "results.json").read_text())["settings"]["data"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The committed results as a finished run, without its data."""
    for name in (
        "params.yaml",
        "dvc.lock",
        "stages/ablations/params.yaml",
        "stages/ablations/dvc.lock",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics", ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_rows_of_a_finished_run_are_collected(run):
    settings = config.read()
    content = publication.collect(settings)
    assert content["tables"] == settings.ablations.tables
    assert content["left_out"] == []
    assert set(settings.rows) < content["rows"].keys()
    audit = files.read_json(run / "metrics/ablations/audit/k_1.json")
    assert content["results"]["audit"]["ablations/k_1"] == audit
    assert content["rows"]["rissole_again"]["training_seed"] == 1
    json.dumps(content, allow_nan=False)


def test_figures_edited_since_they_were_measured_are_not_published(run):
    path = run / "metrics/fid/rissole.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(InputError, match="metrics/fid/rissole.json: not as compute_fid wrote it"):
        publication.collect(config.read())


def test_a_table_with_a_row_that_was_scored_on_other_images_is_left_out_and_named(run):
    path = run / "stages/ablations/dvc.lock"
    lock = yaml.load(path.read_text(), publication.LOADER)
    for dep in lock["stages"]["compute_fid@k_1"]["deps"]:
        if dep["path"] == "data/reference":
            dep["md5"] = "0" * 32
    path.write_text(yaml.safe_dump(lock))
    content = publication.collect(config.read())
    assert content["left_out"] == ["neighbours"]
    assert "ablations/k_1" not in content["rows"]
    assert "Not run: neighbours." in publication.page("these", content, [], [])


def test_a_row_that_was_not_scored_is_named(run):
    path = run / "dvc.lock"
    lock = yaml.load(path.read_text(), publication.LOADER)
    del lock["stages"]["compute_fid@no_rag"]
    path.write_text(yaml.safe_dump(lock))
    with pytest.raises(InputError, match="row no_rag has no score yet"):
        publication.collect(config.read())
