"""Claims: decided by figures and spreads alone."""

from rissole.harness.errors import InputError
from rissole.results import claims
from rissole.results.claims import Claim

import numpy as np
import pytest
import yaml

ROWS = {
    "a": {"score": 10.0},
    "b": {"score": 7.0},
    "c": {"score": 7.5, "colour": 0.5},
    "without": {"colour": 0.6},
}
ENTRY = {
    "says": "One thing is more than the other",
    "measure": "score",
    "row": "a",
    "relation": "above",
    "than": "b",
    "margin": 2.5,
    "holds": True,
}


def claim(**changes):
    return Claim(**(ENTRY | changes))


def holds(asserted, spread):
    """Whether a claim on ROWS holds where two equal rows of another kind have this spread."""
    apart = spread * 2**0.5 * 1.96 / 12.71  # a single pair's is widened
    others = {"x/0": {"score": 40.0}, "x/1": {"score": 40 + apart}}
    return claims.holds(asserted, ROWS | others)


@pytest.mark.parametrize(
    ("row", "relation", "than", "spread", "held"),
    [
        ("a", "above", "b", 1.19, True),  # a lead of 3 against 2.5 spreads
        ("a", "above", "b", 1.21, False),
        ("b", "above", "a", 0.01, False),
        ("b", "below", "a", 1.19, True),
        ("b", "below", "a", 1.21, False),
        ("a", "below", "b", 0.01, False),
        ("b", "level", "c", 0.21, True),
        ("c", "level", "b", 0.21, True),
        ("b", "level", "c", 0.19, False),
        ("c", "level", "b", 0.19, False),
    ],
)
def test_rows_differ_if_they_are_further_apart_than_the_margin_in_spreads(
    row, relation, than, spread, held
):
    assert holds(claim(row=row, relation=relation, than=than), spread) is held


def test_without_a_margin_any_lead_is_one_and_a_tie_is_none():
    assert holds(claim(margin=0, row="c", than="b"), 100.0) is True
    assert holds(claim(margin=0, row="b", than="b"), 100.0) is False


def test_equal_figures_are_level_however_small_the_spread():
    assert holds(claim(row="b", relation="level", than="b"), 0.0) is True


def test_it_is_the_means_over_seeds_that_are_compared():
    rows = table({"a/0": 10, "a/1": 5, "b/0": 7, "b/1": 8.5})
    assert claims.holds(claim(margin=0), rows) is False  # 7.5 and 7.75


@pytest.mark.parametrize(
    "changes", [{"row": "d"}, {"than": "d"}, {"than": "without"}, {"measure": "speed"}]
)
def test_without_a_row_or_its_measure_nothing_can_be_said(changes):
    for relation in ("above", "below", "level"):
        assert holds(claim(relation=relation, **changes), 1.0) is None


def test_without_a_spread_nothing_can_be_said():
    assert claims.holds(claim(margin=0), ROWS) is None


def test_a_figure_is_the_mean_over_the_seeds_of_an_entry():
    rows = table({"a/0": 10, "a/1": 13, "ab/0": 100, "c": 7})
    assert claims.figure(rows, "a", "score") == pytest.approx(11.5)
    assert claims.figure(rows, "c", "score") == 7


def test_an_entry_of_which_a_seed_has_no_figure_has_none():
    rows = table({"a/0": 10}) | {"a/1": {"colour": 1.0}}
    assert claims.figure(rows, "a", "score") is None
    assert claims.figure(rows, "missing", "score") is None


def table(values):
    """Rows with a score, by name."""
    return {name: {"score": float(value)} for name, value in values.items()}


def test_of_one_pair_the_spread_is_its_standard_deviation_widened_by_student_s_t():
    found = claims.spread(table({"a/0": 3, "a/1": 7, "c": 100}), ["a"], "score")
    assert found == pytest.approx(np.std([3, 7], ddof=1) * 12.706 / 1.96, rel=1e-3)


def test_the_spread_is_what_is_left_when_each_entry_has_its_own_mean():
    """By least squares with a dummy for each entry, instead of by entries."""
    draw = np.random.default_rng(0)
    sizes = (2, 2, 3, 5)
    names = [f"{group}/{seed}" for group, n in enumerate(sizes) for seed in range(n)]
    y = np.concatenate([50 * group + draw.normal(size=n) for group, n in enumerate(sizes)])
    dummies = np.eye(len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    _, residual, rank, _ = np.linalg.lstsq(dummies, y, rcond=None)
    found = claims.spread(table(dict(zip(names, y, strict=True))), "0123", "score")
    assert found == pytest.approx(np.sqrt(residual.item() / (len(y) - rank)) * 2.306 / 1.96)


@pytest.mark.parametrize("entries", [[], ["a"], ["d"]])
def test_without_two_seeds_there_is_no_spread(entries):
    assert claims.spread(table({"a/0": 3}) | {"d/0": {}, "d/1": {}}, entries, "score") is None


def written(tmp_path, content):
    path = tmp_path / "claims.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


BAD = {
    "a key left out": ([{k: v for k, v in ENTRY.items() if k != "than"}], "than: Field required"),
    "a key too many": ([ENTRY | {"by": 3}], "by: Extra inputs"),
    "no such relation": ([ENTRY | {"relation": "beats"}], "relation: .*'above'"),
    "a word for a number": ([ENTRY | {"margin": "five"}], "margin: .*number"),
    "no list": (ENTRY, "list"),
    "nothing": ("", "list"),
    "no YAML": ("- says: {", "not valid YAML"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_with_a_sentence(fault, tmp_path):
    content, sentence = BAD[fault]
    with pytest.raises(InputError, match=rf"claims\.yaml: .*{sentence}") as refused:
        claims.read(written(tmp_path, content))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"claims\.yaml does not exist"):
        claims.read(tmp_path / "claims.yaml")
