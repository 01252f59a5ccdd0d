"""The table: its order, its alignment, and a verdict that follows the numbers."""

import json

import pytest
import yaml

import make_tables
from rissole import files, tables
from rissole.errors import InputError

REFERENCE = {
    "fd_effnet_lite1": {
        "floor": 99.94,
        "reconstructed": 141.0,
        "perfect": 150.0,
        "perfect_reconstructed": 101.0,
    },
    "kd_effnet_lite1": {"floor": 0.001},
    "fd_effnet_lite2": {
        "floor": 98.0,
        "reconstructed": 139.0,
        "perfect": 148.0,
        "perfect_reconstructed": 99.0,
    },
    "images": {"drawn": 500, "train": 1000, "val": 1000},
}
LDM = {"parameters_live": 1234567, "gflop_per_image_step": 0.1234, "train_seconds": 61.7}


def scored(distance):
    """What compute_fid writes of a row at `distance` from val."""
    of = {"val": distance, "train": distance + 1, "reconstructed": distance - 60}
    return {"fd_effnet_lite1": of, "fd_effnet_lite2": of, "images": 500}


def numbers(**distances):
    """The table's numbers for rows at these distances."""
    fid = {row: scored(distance) for row, distance in distances.items()}
    return tables.numbers(fid, dict.fromkeys(fid, LDM), REFERENCE)


def test_a_lead_beyond_the_difference_of_two_seeds_is_a_win():
    said = tables.verdict(numbers(rissole=180.1, no_rag=200.2, rissole_again=183.1))
    assert (
        "**rissole beats no_rag**: 180.1 against 200.2,"
        " a lead of 20.1 where two seeds differ by 3.0." in said
    )


@pytest.mark.parametrize(
    ("no_rag", "figures"), [(182.0, "a lead of 1.9 where"), (170.0, "10.1 behind where")]
)
def test_a_smaller_lead_or_none_is_said_to_be_no_win(no_rag, figures):
    said = tables.verdict(numbers(rissole=180.1, no_rag=no_rag, rissole_again=177.1))
    assert "**rissole does not beat no_rag**" in said
    assert figures in said
    assert "rissole beats" not in said


def test_the_claim_is_told_against_images_and_against_reconstructions():
    claim = numbers(rissole=180.0, no_rag=200.0, rissole_again=183.0)["claim"]
    assert claim["val"]["lead"] == pytest.approx(20)
    assert claim["reconstructed"]["rissole"] == pytest.approx(120)


def test_without_its_rows_there_is_no_claim():
    table = numbers(rissole=180.0, whole=200.0)
    assert "claim" not in table
    assert "cannot be said" in tables.verdict(table)


def test_rows_keep_their_order_and_numbers_line_up_on_the_right():
    header, rule, *lines = tables.score_table(numbers(whole=1180.0, rissole=99.0)).splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["whole", "rissole"]
    assert len({len(line) for line in [header, rule, *lines]}) == 1
    assert [cell[-1] for cell in rule.split("|")[2:-1]] == [":"] * 7
    cells = [line.split("|") for line in lines]
    assert [cell[2].strip() for cell in cells] == ["1180.0", "99.0"]
    assert cells[0][6].strip() == "1,234,567"


def test_the_page_says_that_the_number_is_not_fid_and_marks_the_printed_figures():
    page = tables.markdown(numbers(rissole=180.0), {"vqgan": {"psnr": 23.456789}})
    assert "fd_effnet_lite1 is not FID" in page
    assert "As printed" in page
    assert "Not comparable" in page
    printed = [line for line in page.splitlines() if line.startswith("| RISSOLE  ")]
    assert [cell.strip() for cell in printed[0].split("|")[3:6]] == ["180.0", "9.82", "12.93"]
    assert "| vqgan.psnr |  23.457 |" in page


def test_every_leaf_is_a_number(tmp_path):
    table = numbers(rissole=180.0, no_rag=200.0, rissole_again=183.0)
    leaves = []

    def walk(node):
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        else:
            leaves.append(node)

    walk(table)
    assert all(isinstance(leaf, int | float) for leaf in leaves)


def test_a_nan_is_never_written(tmp_path):
    path = tmp_path / "tables.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, numbers(rissole=float("nan")))
    assert not path.exists()


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A folder with the metrics of two rows and their params.yaml."""
    monkeypatch.chdir(tmp_path)
    rows = {"no_rag": {"context": "latents"}, "whole": {"context": "latents", "blocks": 1}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"variants": rows}, sort_keys=False))
    for row, distance in zip(rows, (200.0, 180.0), strict=True):
        files.write_json(tmp_path / f"metrics/fid/{row}.json", scored(distance))
        files.write_json(tmp_path / f"metrics/ldm/{row}.json", LDM)
    files.write_json(tmp_path / "metrics/reference.json", REFERENCE)
    files.write_json(tmp_path / "metrics/vqgan.json", {"psnr": 23.0})
    files.write_json(tmp_path / "metrics/retrieval.json", {"latent": {"kind": "exact"}})
    return tmp_path / "metrics"


def test_the_stage_prints_the_table_and_where_the_pictures_are(measured, capsys):
    make_tables.main()
    printed = capsys.readouterr().out
    assert "no_rag" in printed
    assert "metrics/grids/*.png" in printed.splitlines()[-1]
    rows = json.loads((measured / "tables.json").read_text())["rows"]
    assert list(rows) == ["no_rag", "whole"]
    assert rows["whole"]["fd_effnet_lite1"] == 180.0
    assert tables.score_table(json.loads((measured / "tables.json").read_text())) in printed
    assert "retrieval.latent.kind" in (measured / "tables.md").read_text()


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("fid/whole", "compute_fid@whole"),
        ("ldm/no_rag", "train_ldm@no_rag"),
        ("reference", "extract_features"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(measured, path, stage):
    (measured / f"{path}.json").unlink()
    with pytest.raises(InputError, match=rf"{path}\.json does not exist; `dvc repro {stage}`"):
        make_tables.main()
