"""The tables: their order, their alignment, and verdicts that follow the figures."""

import json
from copy import deepcopy

import make_tables
import toy
from rissole.auditing import audit, coherence
from rissole.auditing.copies import Drawn
from rissole.core import files
from rissole.harness.errors import InputError
from rissole.judging import scores
from rissole.results import measurements, pages, retrieval_page, tables
from rissole.results.claims import Claim

import numpy as np
import pytest
import torch
import yaml

LITE1 = "fd_effnet_lite1"
DRAWN = 40
LDM = {
    "parameters_live": 1234567,
    "gflop_per_image_step": 0.1234,
    "train_seconds": 61.7,
    "train_images_per_second": 77.6,
    "train_peak_mb": 1500,
    "images_seen": 4800,
    "validation_loss": 0.1,
}
SAMPLING = {"sampling_images_per_second": 12.3, "sampling_peak_mb": 900, "calls": 20}
RETRIEVED = {
    "rows": 4000,
    "queries": 4000,
    "k": 5,
    "by": {
        "latent": {
            "precision": {"label": {"at_1": 0.9, "at_5": 0.6, "chance": 0.25}},
            "agreement": 0.75,
            "by_rank": [0.9, 0.8, 0.7, 0.6, 0.5],
            "never_retrieved": 0.03,
            "largest_hub": 1042,
            "skew": 1.5,
        }
    },
}
SAMPLES = ("agreement", "similarity")
MOVED = {"swapped": 0.9, "permuted": 0.2, "dropped": 1.1}


def features(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 12)).astype(np.float32)


def pictures(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def measured():
    """What the stages write of a row that was told neighbours, of one that was not, and of none."""
    train, val, drawn = (toy.latents(n, seed=n) for n in (120, 60, DRAWN))
    table, draw = train.table(normalise=True), torch.Generator().manual_seed(0)
    sets = []
    for of in (train, val, drawn):
        rows = torch.randint(120, (len(of), 5), generator=draw)
        sets.append(Drawn(of.look_up(table), of.codes, rows[:, 1:], rows[:, 0]))
    detectors = [coherence.Detector(2).eval() for _ in range(2)]
    told = {}
    for name in ("told", "untold"):
        if name == "untold":
            sets = [Drawn(of.z, of.codes) for of in sets]
        found, _ = audit.trace(
            sets[2], audit.Real(*sets[:2], blocks=2, query_blocks=frozenset({0}))
        )
        found["coherence"] = coherence.measure(
            sets[2].z, pictures(DRAWN, 0), sets[1].z, pictures(60, 1), detectors, 2, 2
        )
        told[name] = files.rounded(found | {"images": DRAWN, "held_out": 60})
    true = scores.Features(features(60, 1), features(60, 2), features(60, 3), np.ones(60, bool))
    fid, reference = {"images": DRAWN}, {}
    for judge in ("efficientnet_lite1", "efficientnet_lite2"):
        fid |= scores.score(judge, features(DRAWN, 4), np.zeros(DRAWN, bool), true)
        reference |= scores.reference(judge, true, features(DRAWN, 5))
    reference["coherence"] = coherence.reference(detectors, sets[1].z, 2, 0)
    reference["images"] = {"drawn": DRAWN, "train": 60, "val": 60, "val_apart": 60}
    return told | {"fid": fid, "reference": reference}


@pytest.fixture
def results(measured):
    """Make results of rows and controls at these distances; None where a row is accused."""

    def at(distance, told):
        fid, found = deepcopy(measured["fid"]), deepcopy(measured[told])
        fid[LITE1]["val"] = (distance or 0) + 1000
        if distance is None:
            del fid[LITE1]["uncopied"]
            found["accused"] = ["own_query"]
        else:
            fid[LITE1]["uncopied"] = distance
        return {"fid": fid, "audit": found}

    def make(controls=None, told="told", **rows):
        of = {row: at(distance, told) for row, distance in rows.items()}
        return measurements.Results(
            fid={row: content["fid"] for row, content in of.items()},
            audit={row: content["audit"] for row, content in of.items()},
            ldm=dict.fromkeys(of, LDM),
            sampling=dict.fromkeys(of, SAMPLING),
            controls={row: at(distance, "untold") for row, distance in (controls or {}).items()},
            reference=measured["reference"],
        )

    return make


def cells(table):
    """A Markdown table as a list of dicts of stripped cells."""
    header, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    ]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_rows_stand_in_the_order_of_what_copies_cannot_improve_and_those_without_it_last(results):
    of = results(whole=90.0, leaked=None, rissole=20.5, released=None, no_rag=1180.0)
    lines = cells(tables.score_table(of))
    assert [line["row"] for line in lines] == ["rissole", "whole", "no_rag", "leaked", "released"]
    assert [line["**uncopied**"] for line in lines] == ["20.5", "90.0", "1180.0", "-", "-"]
    assert [line[LITE1] for line in lines] == ["1020.5", "1090.0", "2180.0", "1000.0", "1000.0"]


def test_a_control_stands_among_the_rows_in_italics(results):
    of = results(rissole=20.0, whole=90.0, controls={"held_out": 0.5, "collage": 50.0})
    for table in (tables.score_table, tables.copies_table, tables.coherence_table):
        lines = [line["row"] for line in cells(table(of))]
        assert lines == ["*held_out*", "rissole", "*collage*", "whole"]


def test_the_last_column_holds_the_objections(results):
    of = results(rissole=20.0, whole=30.0)
    for audit_of in of.audit.values():
        audit_of["accused"], audit_of["copied"] = [], {"rate": 0.1, "null": 0.1}
        audit_of["coherence"] |= dict.fromkeys(
            ("ratio", "lagged", "latent_ratio", "latent_lagged"), 1.0
        )
        audit_of["coherence"] |= {"colour_correlation": 1.0, "collage_excess": 0.0}
    for fid in of.fid.values():
        fid["effnet_lite1"]["recall"] = 1.0
    of.audit["whole"]["accused"] = ["pasted"]
    of.fid["whole"]["effnet_lite1"]["recall"] = 0.0
    assert [line["objections"] for line in cells(tables.score_table(of))] == ["-", "pasted, recall"]


def test_headline_numbers_are_those_of_the_files(results):
    of = results(rissole=20.0, leaked=None, controls={"held_out": 0.5})
    rows = measurements.numbers(of)
    assert list(rows) == ["rissole", "leaked", "held_out"]
    assert rows["rissole"][LITE1] == 1020.0
    assert rows["rissole"]["uncopied"] == 20.0
    assert "uncopied" not in rows["leaked"]
    found = of.audit["rissole"]
    assert rows["rissole"]["copied"] == found["copied"]["rate"]
    assert rows["rissole"]["own_query"] == found["own_query"]["rate"]
    assert rows["rissole"]["colour"] == found["coherence"]["colour_correlation"]
    assert rows["rissole"]["gflop_per_image"] == pytest.approx(20 * 0.1234, abs=1e-3)
    assert not rows["held_out"].keys() & {"own_query", "parameters_live", "gflop_per_image"}


def test_what_copies_is_told_beside_held_out_images(results):
    of = results(rissole=20.0)
    of.sampling["rissole"] = SAMPLING | {"sensitivity": MOVED}
    of.audit["rissole"] |= {
        "copied": {"rate": 0.25, "null": 0.014, "tests": 7, "of": 9},
        "own_query": {"rate": 1.0, "null": 0.02},
        "pasted": {"chance": 0.123},
        "ranks": [0.5, 0.3, 0.2],
        "ranks_null": [0.25, 0.25, 0.5],
        "sources": {"mean": 3.25, "null": 3.75},
    }
    (line,) = cells(tables.copies_table(of))
    assert line["copied"] == "25 (1) %"
    assert line["tests"] == "7 of 9"
    assert line["own query"] == "100 (2) %"
    assert line["pasted"] == "0.12"
    assert line["rank 1"] == "50 (25) %"
    assert line["sources"] == "3.2 (3.8)"
    assert [line[name] for name in MOVED] == ["0.90", "0.20", "1.10"]


def test_a_row_that_was_told_no_neighbours_cannot_have_copied_them(results):
    (line,) = cells(tables.copies_table(results(told="untold", no_rag=20.0)))
    missing = {name for name, cell in line.items() if cell == "-"}
    assert missing == {"own query", "own neighbours", "inside them", "pasted", "rank 1", *MOVED}


def claim(**changes):
    entry = {"says": "So it is", "measure": "uncopied", "row": "a", "relation": "below"}
    return Claim(**(entry | {"than": "b", "margin": 2.0, "holds": True} | changes))


def test_claims_are_told_with_their_figures_and_whether_they_hold():
    rows = {"a/0": {"uncopied": 10.0}, "a/1": {"uncopied": 12.0}, "b": {"uncopied": 31.25}}
    asserted = [claim(), claim(relation="above"), claim(than="c"), claim(measure="colour")]
    lines = cells(tables.claims_table(rows, asserted))
    assert [line["holds"] for line in lines] == ["yes", "**no**", *["cannot be said"] * 2]
    assert [line["row / the other"] for line in lines] == ["11 / 31.25"] * 2 + ["11 / -", "- / -"]
    assert [line["spread"] for line in lines] == ["9.2", "9.2", "9.2", "-"]
    assert {line["claim"] for line in lines} == {"So it is"}
    told = ["a below b by 2 spreads", "a above b by 2 spreads", "a below c by 2 spreads"]
    assert [line["compared"] for line in lines] == [*told, "a below b by 2 spreads"]


def test_the_page_holds_every_table(results):
    of = results(rissole=20.0, leaked=None, controls={"held_out": 0.5})
    written = pages.scores_page(of, {"vqgan": {"psnr": 23.456789}})
    for make in (
        tables.score_table,
        tables.copies_table,
        tables.coherence_table,
        tables.cost_table,
    ):
        assert make(of) in written
    (measured,) = [line for line in written.splitlines() if line.startswith("| vqgan.psnr")]
    assert measured.split("|")[2].strip() == "23.457"


def test_the_paper_s_figures_stand_beside_the_rows_of_their_names(results):
    lines = cells(tables.paper_table(results(rissole=20.0, rdm=60.0)))
    ours = {line["ours"]: line for line in lines}
    assert [*ours["rissole"].values()][2:] == ["1020.0", "9.82", "12.93"]
    assert ours["rissole_prev"][LITE1] == "-"


def test_the_seeds_of_an_entry_share_a_line_with_their_mean_and_spread(results):
    of = results(**{"rissole/0": 20.0, "rissole/1": 26.0, "whole/0": 90.0, "leaked/0": None})
    rows = measurements.numbers(of)
    lines = cells(tables.ablation_table(["whole", "rissole", "leaked"], rows))
    assert [line["row"] for line in lines] == ["whole", "rissole", "leaked"]
    assert [line["seeds"] for line in lines] == ["1", "2", "1"]
    assert [line["uncopied"] for line in lines] == ["90.0", "23.0 ± 4.2", "-"]


@pytest.fixture
def folder(tmp_path, monkeypatch, results, measured):
    """A folder with the metrics of three rows of two variants, and their params.yaml."""
    monkeypatch.chdir(tmp_path)
    variants = {"no_rag": {"context": "latents"}, "whole": {"context": "latents", "blocks": 1}}
    rows = {name: {"variant": name, "context": "latents"} for name in variants}
    rows["whole_more"] = rows["whole"] | {"sample": {"steps": 10}}
    content = {"seed": 0, "blocks": 2, "variants": variants, "rows": rows, "retrievals": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    of = results(told="untold", no_rag=200.0, whole=180.0, whole_more=170.0)
    metrics = tmp_path / "metrics"
    for kind in ("fid", "audit", "sampling"):
        for row in rows:
            files.write_json(metrics / kind / f"{row}.json", getattr(of, kind)[row])
    for variant in variants:
        files.write_json(metrics / "ldm" / f"{variant}.json", LDM)
    files.write_json(metrics / "reference.json", measured["reference"])
    controls = {"held_out": {"fid": measured["fid"], "audit": measured["untold"]}}
    files.write_json(metrics / "controls.json", controls)
    files.write_json(metrics / "vqgan.json", {"psnr": 23.0})
    files.write_json(metrics / "retrieval.json", {"latent": {"kind": "exact"}})
    files.write_json(metrics / "retrieval_quality.json", RETRIEVED)
    return metrics


def test_the_page_about_retrieval_has_a_line_for_each_query_and_each_row_that_retrieves(results):
    of = results(rissole=20.0, whole=90.0)
    of.fid["rissole"] |= {name: {"rho": 0.314, "chance": 0.1} for name in SAMPLES}
    (by,) = cells(retrieval_page.retrieval_table(RETRIEVED))
    assert (by["looked up by"], by["agreement"]) == ("latent", "0.750")
    assert (by["similar at 1"], by["similar at 5"]) == ("0.900", "0.500")
    assert (by["same label at 5"], by["label by chance"]) == ("60%", "25%")
    assert (by["largest hub"], by["never"]) == ("1,042", "3%")
    (row,) = cells(retrieval_page.samples_table(of))
    assert [*row.values()] == ["rissole", "+0.31", "+0.31", "0.10"]


def test_the_stage_prints_scores_and_where_the_pictures_are(folder, capsys):
    make_tables.main()
    printed = capsys.readouterr().out
    assert "metrics/grids/*.png" in printed.splitlines()[-1]
    rows = json.loads((folder / "tables.json").read_text())
    assert list(rows) == ["no_rag", "whole", "whole_more", "held_out"]
    assert rows["whole"]["uncopied"] == 180.0
    written = (folder / "tables.md").read_text()
    assert "retrieval.latent.kind" in written
    tables_printed = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(tables_printed) == 2 + 4
    assert all(line in written for line in tables_printed)


@pytest.mark.parametrize(
    "path",
    [
        "fid/whole_more",
        "audit/no_rag",
        "ldm/whole",
        "controls",
        "reference",
        "vqgan",
        "retrieval_quality",
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(folder, path):
    (folder / f"{path}.json").unlink()
    with pytest.raises(InputError, match=rf"{path}\.json does not exist; `dvc repro"):
        make_tables.main()
    assert not (folder / "tables.md").exists()


def test_the_own_group_has_a_column_where_images_have_groups(results):
    of = results(rissole=20.0, whole=90.0)
    assert "own group" not in cells(tables.copies_table(of))[0]
    rows = measurements.numbers(of)
    assert "own_group" not in cells(tables.ablation_table([*of.fid], rows))[0]
    of.audit["rissole"]["own_group"] = {"rate": 0.5, "null": 0.25}
    lines = cells(tables.copies_table(of))
    assert [line["own group"] for line in lines] == ["50 (25) %", "-"]
    lines = cells(tables.ablation_table([*of.fid], measurements.numbers(of)))
    assert [line["own_group"] for line in lines] == ["0.50", "-"]


def test_neighbour_tables_are_told_with_their_hubs():
    table = {"never_retrieved": 0.123, "largest_hub": 1234, "cosine": 0.98765}
    first, second = cells(
        tables.neighbour_table({"main": table, "ablations/k": table | {"own_group": 0.5}})
    )
    assert list(first.values()) == ["main", "12%", "1,234", "0.988", "-"]
    assert (second["neighbours"], second["own group"]) == ("k", "50%")


def test_systems_are_told_apart_by_what_they_see_and_are_told(results):
    of = results(rissole=20.0, rissole_prev=30.0, halo=40.0, patches=50.0, rdm=60.0)
    variants = {
        "rissole": toy.row("stack"),
        "rissole_prev": toy.row("stack", previous=True),
        "halo": toy.row("set", halo=2),
        "patches": toy.row(
            space="pixel",
            blocks=1,
            patches=[{"parts": 4, "share": 0.4}, {"parts": 1, "share": 0.6}],
        ),
        "rdm": toy.row("tokens", blocks=1),
    }
    table = {line["row"]: line for line in cells(tables.systems_table(variants, of))}
    columns = ["space", "seen at once", "trained on", "told of neighbours", "between blocks"]
    found = {row: [line[column] for column in columns] for row, line in table.items()}
    assert found == {
        "rissole": ["latent", "2 x 2 blocks", "the same", "their blocks, by rank", "-"],
        "rissole_prev": [
            *("latent", "2 x 2 blocks", "the same", "their blocks, by rank", "the one before")
        ],
        "halo": ["latent", "2 x 2 blocks", "the same", "their blocks, as a set", "a rim of 2"],
        "patches": ["pixel", "all", "1/4 or 1/1 of a side", "-", "-"],
        "rdm": ["latent", "all", "the same", "an embedding each", "-"],
    }
    parallel = [line["blocks in parallel"] for line in table.values()]
    assert parallel == ["yes", "no", "step by step", "-", "-"]
    assert table["rissole"]["calls in turn"] == "20"
    assert table["rissole_prev"]["calls in turn"] == "80"
    assert table["rissole"]["GFLOP per drawn image"] == f"{20 * 0.1234:.2f}"
