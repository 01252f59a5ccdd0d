"""What is published of other runs: whole, and without a trace of whose disk it was on."""

import json
import math

from committed import ROOT, unique
from rissole.results import claims, publication

import pytest
import yaml

FOLDER = ROOT / "metrics/published"
STAGES = yaml.safe_load((FOLDER / "dvc.yaml").read_text())["stages"]
NAMES = STAGES["make_published_tables"]["foreach"]


@pytest.fixture(scope="module", params=NAMES)
def published(request):
    text = (FOLDER / request.param / "results.json").read_text()
    return request.param, json.loads(text, object_pairs_hook=unique)


@pytest.fixture(scope="module")
def asserted():
    return claims.read(ROOT / "metrics/claims.yaml")


def leaves(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield node


def test_every_publication_gets_its_tables_and_holds_no_pictures():
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == sorted(NAMES)
    files = {path.name for path in FOLDER.glob("*/*")}
    assert files == {"results.json", "tables.md"}


def test_what_is_published_is_whole_and_finite(published):
    _, content = published
    assert all(math.isfinite(leaf) for leaf in leaves(content) if isinstance(leaf, int | float))
    rows, results = content["rows"].keys(), content["results"]
    assert rows
    assert content["main"] and {*content["main"]} <= rows
    assert all(results[kind].keys() == rows for kind in ("fid", "audit", "ldm", "sampling"))
    for entries in content["tables"].values():
        assert all(claims.runs(rows, entry) for entry in entries)


def test_what_is_published_names_machine_seeds_and_inputs(published):
    _, content = published
    digests = content["inputs"].values()
    assert digests or "note" in content  # one that was put together of several runs
    assert all(len(digest.removesuffix(".dir")) == 32 for digest in digests)
    assert content["machine"]["device"] and content["commit"]
    assert all(isinstance(row["variant"]["seed"], int) for row in content["rows"].values())


def test_no_places_on_a_disk_are_published(published):
    _, content = published
    strings = [leaf for leaf in leaves(content) if isinstance(leaf, str)]
    assert not any(text.startswith(("/", "~", ".")) for text in strings)
    sections = [of for of in content["settings"].values() if isinstance(of, dict)]
    assert not any(publication.PLACES & section.keys() for section in sections)


def test_the_page_is_what_is_made_of_the_results_and_the_claims(published, asserted):
    name, content = published
    written = (FOLDER / name / "tables.md").read_text("utf-8")
    assert publication.page(name, content, asserted) == written


def test_claims_about_rows_that_are_not_there_are_left_out(published, asserted):
    name, content = published
    row = next(iter(content["rows"])).rpartition("/")[0]
    told = asserted[0].model_copy(update={"says": "Told", "row": row, "than": "held_out"})
    missing = told.model_copy(update={"says": "Never heard of", "than": "nobody"})
    page = publication.page(name, content, [told, missing])
    assert "Told" in page and "Never heard of" not in page
