"""What is published of other images: whole, and without a trace of whose disk it was on."""

import json
import math
import subprocess

from committed import ROOT, committed
from rissole.results import publication
from rissole.results.claims import Claim

import pytest
import yaml

NAMES = yaml.safe_load(committed("metrics/published/dvc.yaml"))["stages"]["make_published_tables"][
    "foreach"
]


def unique(pairs: list[tuple]) -> dict:
    """A JSON object, none of whose keys stands twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.fixture(scope="module", params=NAMES)
def published(request):
    text = committed(f"metrics/published/{request.param}/results.json")
    return request.param, json.loads(text, object_pairs_hook=unique)


def leaves(node):
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield node


def test_what_is_published_is_whole_and_finite(published):
    _, content = published
    assert all(math.isfinite(leaf) for leaf in leaves(content) if isinstance(leaf, int | float))
    rows = content["rows"].keys()
    assert {*content["main"], *sum(content["tables"].values(), [])} == rows
    for kind in ("fid", "audit", "ldm", "sampling"):
        assert content["results"][kind].keys() == rows


def test_what_is_published_names_machine_seeds_and_inputs(published):
    _, content = published
    digests = [*content["inputs"].values()]
    digests += [row[of] for row in content["rows"].values() for of in ("weights", "samples")]
    assert all(len(digest.removesuffix(".dir")) == 32 for digest in digests)
    assert content["machine"]["device"]
    assert all(isinstance(row["variant"]["seed"], int) for row in content["rows"].values())


def test_neither_pictures_nor_places_on_a_disk_are_published(published):
    name, content = published
    words = ["git", "ls-tree", "--name-only", "HEAD", f"metrics/published/{name}/"]
    files = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {path.rpartition("/")[2] for path in files.split()} == {"results.json", "tables.md"}
    strings = [leaf for leaf in leaves(content) if isinstance(leaf, str)]
    assert not any(text.startswith(("/", "~", ".")) for text in strings)
    sections = [of for of in content["settings"].values() if isinstance(of, dict)]
    assert not any(publication.PLACES & section.keys() for section in sections)


def test_seconds_of_training_count_a_denoiser_once_and_left_out_tables_are_named(published):
    name, content = published
    page = publication.page(name, content | {"left_out": ["blocks", "hubs"]}, [], [])
    assert "Not run: blocks, hubs." in page
    ldm = content["results"]["ldm"]
    trained = {of["row"]["variant"]: row for row, of in content["rows"].items()}
    seconds = sum(ldm[row]["train_seconds"] for row in trained.values())
    assert f"{seconds:,.0f} seconds of training" in page
    assert page.count("# Scores") == 1


def test_claims_about_rows_that_are_not_there_are_left_out(published):
    name, content = published
    claim = Claim(
        says="Never heard of", measure="colour", row="rissole", relation="above", than="nobody",
        margin=3, holds=True,
    )  # fmt: skip
    assert "Never heard of" not in publication.page(name, content, [claim], [claim])
    heard = claim.model_copy(update={"than": "held_out"})
    assert "Never heard of" in publication.page(name, content, [heard], [])
