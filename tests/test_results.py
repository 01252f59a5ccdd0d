"""The committed results: all rows there, once, finite, and the claims as the figures say."""

import json
import math

import pytest
import yaml

from committed import ROOT, committed
from rissole.ground import config
from rissole.results import claims


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The committed settings."""
    folder = tmp_path_factory.mktemp("settings")
    for name in ("params.yaml", "stages/ablations/params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(committed(name))
    return config.read(folder / "params.yaml")


def names(settings, table: str) -> list[str]:
    if table == "metrics":
        return [*settings.rows]
    return [*dict.fromkeys(sum(settings.ablations.tables.values(), []))]


TABLES = ["metrics", "metrics/ablations"]


def unique(pairs: list[tuple]) -> dict:
    """A JSON object, none of whose keys stands twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_there_once_and_every_number_finite(table, settings):
    rows = json.loads(committed(f"{table}/tables.json"), object_pairs_hook=unique)
    assert set(names(settings, table)) <= rows.keys()
    assert all(math.isfinite(number) for row in rows.values() for number in row.values())


@pytest.mark.parametrize("table", TABLES)
def test_every_claim_holds_or_not_as_the_figures_say(table, settings, tmp_path):
    rows = json.loads(committed(f"{table}/tables.json"))
    path = tmp_path / "claims.yaml"
    path.write_text(committed(f"{table}/claims.yaml"))
    asserted, repeats = claims.read(path), settings.repeats(names(settings, table))
    assert asserted
    assert [one for one in asserted if claims.holds(one, rows, repeats) is not one.holds] == []


@pytest.mark.parametrize("table", TABLES)
def test_every_claim_is_in_the_readme(table):
    readme = (ROOT / "README.md").read_text()
    for one in yaml.safe_load(committed(f"{table}/claims.yaml")):
        assert one["says"] in readme
