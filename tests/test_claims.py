"""Claims: decided by figures and spreads alone, and in the committed results all as committed."""

from rissole.ground.errors import InputError
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
    others = {"x": {"score": 40.0}, "y": {"score": 40 + apart}}
    return claims.holds(asserted, ROWS | others, [["x", "y"]])


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


def test_it_is_the_means_over_equal_rows_that_are_compared():
    rows = ROWS | {"a_again": {"score": 5.0}, "b_again": {"score": 8.5}}
    groups = [["a", "a_again"], ["b", "b_again"]]
    assert claims.holds(claim(margin=0), rows, [["b", "b_again"]]) is True  # 10 and 7.75
    assert claims.holds(claim(margin=0), rows, groups) is False  # 7.5 and 7.75


@pytest.mark.parametrize(
    "changes", [{"row": "d"}, {"than": "d"}, {"than": "without"}, {"measure": "speed"}]
)
def test_without_a_row_or_its_measure_nothing_can_be_said(changes):
    for relation in ("above", "below", "level"):
        assert holds(claim(relation=relation, **changes), 1.0) is None


@pytest.mark.parametrize("groups", [[], [["a"]], [["a", "without"]]])
def test_without_a_spread_nothing_can_be_said(groups):
    assert claims.holds(claim(margin=0), ROWS, groups) is None


def test_figures_of_zero_are_figures():
    rows = {"a": {"score": 0.0}, "b": {"score": -1.0}, "b_again": {"score": -1.0}}
    assert claims.holds(claim(margin=0), rows, [["b", "b_again"]]) is True


def test_a_figure_is_the_mean_over_the_equal_rows_that_have_it():
    rows = ROWS | {"a_again": {"score": 13.0}, "a_third": {"colour": 1.0}}
    groups = [["a", "a_again", "a_third", "missing"], ["b", "c"]]
    assert claims.figure(rows, groups, "a", "score") == pytest.approx(11.5)
    assert claims.figure(rows, [["b", "c"]], "a", "score") == pytest.approx(10)


def test_a_row_without_the_measure_has_no_figure_whatever_its_equals_have():
    groups = [["a", "without"]]
    assert claims.figure(ROWS, groups, "without", "score") is None
    assert claims.figure(ROWS, groups, "missing", "score") is None


def table(values):
    """Rows with a score, by name."""
    return {name: {"score": float(value)} for name, value in values.items()}


def test_of_one_pair_the_spread_is_its_standard_deviation_widened_by_student_s_t():
    found = claims.spread(table({"a": 3, "b": 7, "c": 100}), [["a", "b"]], "score")
    assert found == pytest.approx(np.std([3, 7], ddof=1) * 12.706 / 1.96, rel=1e-3)


def test_the_spread_is_what_is_left_when_each_group_has_its_own_mean():
    """By least squares with a dummy for each group, instead of by groups."""
    draw = np.random.default_rng(0)
    sizes = (2, 2, 3, 5)
    names = [[f"{group}_{seed}" for seed in range(n)] for group, n in enumerate(sizes)]
    values = [50 * group + draw.normal(size=n) for group, n in enumerate(sizes)]
    flat, y = [name for group in names for name in group], np.concatenate(values)
    dummies = np.eye(len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    _, residual, rank, _ = np.linalg.lstsq(dummies, y, rcond=None)
    found = claims.spread(table(dict(zip(flat, y, strict=True))), names, "score")
    assert found == pytest.approx(np.sqrt(residual.item() / (len(y) - rank)) * 2.306 / 1.96)


def test_the_pooled_spread_is_that_which_the_groups_were_drawn_with():
    draw = np.random.default_rng(1)
    names = [[f"{group}_a", f"{group}_b"] for group in range(400)]
    rows = table(
        {name: group + 0.3 * draw.normal() for group, of in enumerate(names) for name in of}
    )
    assert claims.spread(rows, names, "score") == pytest.approx(0.3, rel=0.1)


def test_rows_without_the_measure_and_groups_of_one_add_nothing():
    rows = table({"a": 3, "b": 7, "c": 50}) | {"d": {"colour": 1.0}}
    groups = [["a", "b", "missing"], ["c", "d"], ["c"]]
    assert claims.spread(rows, groups, "score") == claims.spread(rows, [["a", "b"]], "score")


@pytest.mark.parametrize("groups", [[], [["a"]], [["a", "d"]], [["d", "missing"]]])
def test_without_two_equal_rows_there_is_no_spread(groups):
    assert claims.spread(table({"a": 3}) | {"d": {}}, groups, "score") is None


def written(tmp_path, content):
    path = tmp_path / "claims.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_claims_are_read_in_their_order(tmp_path):
    entries = [ENTRY, ENTRY | {"relation": "level", "margin": 1, "holds": False}]
    assert claims.read(written(tmp_path, entries)) == [claim(), Claim(**entries[1])]


BAD = {
    "a key left out": ([{k: v for k, v in ENTRY.items() if k != "than"}], "than: Field required"),
    "a key too many": ([ENTRY | {"by": 3}], "by: Extra inputs"),
    "no such relation": ([ENTRY | {"relation": "beats"}], "relation: .*'above'"),
    "a word for a number": ([ENTRY | {"margin": "five"}], "margin: .*number"),
    "a margin below zero": ([ENTRY | {"margin": -1}], "margin: .*greater than or equal to 0"),
    "neither true nor false": ([ENTRY | {"holds": "maybe"}], "holds: .*boolean"),
    "the second of two": ([ENTRY, {}], "1.says: Field required"),
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
