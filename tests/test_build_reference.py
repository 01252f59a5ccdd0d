"""Stage build_reference, and the scores against it, from files to numbers."""

import json
import shutil
from pathlib import Path

import build_reference
import compute_fid
import toy
from rissole.auditing import coherence
from rissole.core import config, files, numerics
from rissole.dataset import images
from rissole.first_stage import vqgan
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.judging import features, frechet, judges, scores
from rissole.judging.settings import JudgeSettings
from rissole.latent import latents

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

SIZE, DRAWN = 32, 20
SETTINGS = {
    "preset": "quick",
    "seed": 0,
    "blocks": 2,
    "threads": 1,
    "sample": {"images": DRAWN, "sampler": "ddim", "steps": 2, "batch": 8},
    "judge": {"size": 64, "inception": None, "batch": 16},
    "presets": {"quick": {}},
}
LITE1 = "fd_effnet_lite1"


def pictures(n, seed):
    """Coloured squares on coloured ground, uint8 (n, SIZE, SIZE, 3)."""
    draw = np.random.default_rng(seed)
    x = np.empty((n, SIZE, SIZE, 3), np.uint8)
    x[:] = draw.integers(0, 256, (n, 1, 1, 3))
    x[:, 8:24, 8:24] = draw.integers(0, 256, (n, 1, 1, 3))
    return x


def split_table(ids, x):
    """The columns of data/split that are read here."""
    nothing = pa.nulls(len(ids), pa.string())
    columns = {"id": pa.array(ids), "label": nothing, "group": nothing, "source": nothing}
    table = pa.table(columns | {"image": files.bytes_column(x)})
    return table.replace_schema_metadata({"size": str(SIZE)})


def first_stage(seed=0):
    """A small untrained VQ-GAN."""
    params = yaml.safe_load(Path(__file__).parents[1].joinpath("params.yaml").read_text())
    torch.manual_seed(seed)
    changes = {"widths": [8, 8], "perceptual": "none", "steps": 1}
    return vqgan.VQGAN(VQGANSettings(**(params["defaults"]["vqgan"] | changes))).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project whose first stage is there; the reference is built in it.

    Val image 4 and a train image are of one group. Latents are not in the order of the images.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    model = first_stage()
    vqgan.save(folder / "data/vqgan/vqgan.safetensors", model)
    codebook, splits = model.codebook(), {}
    for split, n, seed in (("train", 60, 1), ("val", 40, 2)):
        ids, x = np.arange(n) * 7 - 100 + seed, pictures(n, seed)
        for number, rows in enumerate(np.array_split(np.arange(n), 3)):
            path = folder / f"data/split/{split}-{number:05}.parquet"
            files.write_table(path, split_table(ids[rows], x[rows]))
        with torch.no_grad():
            codes = model.encode(images.to_float(x)).int()
        about = {"mean": codebook.mean(0), "std": codebook.std(0)}
        groups = np.array(["someone" if number == 4 else None for number in range(n)])
        order = np.random.default_rng(3).permutation(n)
        splits[split] = latents.Latents(
            ids[order], ids[order], groups[order], codes[order], codebook, **about
        )
    digest = files.digest(folder / "data/vqgan/vqgan.safetensors")
    toy.write_latents(folder / "data/latents", digest, **splits)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(coherence, "STEPS", 3)
        build_reference.main()
    return folder


@pytest.fixture
def score(folder, monkeypatch):
    """Score pictures against the reference, of which the first `copies` are named copies."""
    monkeypatch.chdir(folder)

    def score(x, copies=0, vouched=True):
        look = judges.open(config.read().section(JudgeSettings))
        keys = {name: judge.key for name, judge in look.items()}
        identity = latents.read(Path("data/latents"), "val").identity
        true = features.read_reference(Path("data/reference"), keys, identity)
        copied = np.arange(len(x)) < copies if vouched else None
        scored = {"images": len(x)}
        for name, judge in look.items():
            scored |= scores.score(name, judge(x), copied, true[name])
        return scored

    return score


def seen(folder, name, judge="efficientnet_lite1"):
    """Written features (n, d) of a set of true images."""
    return files.lists_array(files.read_table(folder / f"data/reference/{name}.parquet")[judge])


def reference(folder):
    return files.read_json(folder / "metrics/reference.json")


def reconstruct(split, ids):
    """Reconstructions by the stage, in batches of 4."""
    encoded = latents.read(Path("data/latents"), split)
    return build_reference.reconstruct(first_stage(), encoded, ids, 4, torch.device("cpu"))


def test_features_are_in_the_order_of_the_ids_beside_them(folder):
    tables = {
        name: files.read_table(folder / f"data/reference/{name}.parquet")["id"]
        for name in ("train", "val", "reconstructed", "reconstructions")
    }
    for ids in tables.values():
        assert len(set(ids.to_pylist())) == 40
    assert tables["val"] == tables["reconstructed"] == tables["reconstructions"]


def test_each_reconstruction_is_that_of_its_own_image(folder, monkeypatch):
    monkeypatch.chdir(folder)
    ids, x = build_reference.take("val", 9)
    with torch.no_grad():
        expected = images.to_uint8(first_stage()(images.to_float(x))[0])
    assert np.abs(reconstruct("val", ids).astype(int) - expected).max() <= 1
    written = images.read_pictures(Path("data/reference/reconstructions.parquet"))
    rows = numerics.evenly(40, 9)
    assert np.abs(written[rows].astype(int) - expected).max() <= 1


def test_a_val_image_of_a_group_that_was_trained_on_is_not_apart(folder):
    table = files.read_table(folder / "data/reference/val.parquet")
    together = [row["id"] for row in table.select(["id", "apart"]).to_pylist() if not row["apart"]]
    assert together == [4 * 7 - 100 + 2]
    assert reference(folder)["images"]["val_apart"] == 39


def test_the_reference_holds_the_distances_that_belong_to_no_row(folder):
    numbers = reference(folder)
    expected = frechet.frechet(seen(folder, "reconstructed"), seen(folder, "val"))
    assert numbers[LITE1]["reconstructed"] == pytest.approx(expected, rel=1e-4)
    assert numbers["images"] == {"drawn": DRAWN, "train": 40, "val": 40, "val_apart": 39}
    assert numbers[LITE1]["floor"] < numbers[LITE1]["reconstructed"]


def test_the_first_stage_is_measured_by_its_reconstructions(folder, monkeypatch):
    monkeypatch.chdir(folder)
    measured = files.read_json(Path("metrics/vqgan.json"))
    made = images.read_pictures(Path("data/reference/reconstructions.parquet"))
    assert measured["psnr"] == pytest.approx(scores.psnr(pictures(40, 2), made))
    for key in (LITE1, "fd_effnet_lite2"):
        assert measured[f"{key}_reconstructed"] == reference(folder)[key]["reconstructed"]
    assert measured["codes"] == 512


def test_a_collapsed_set_scores_far_worse_than_an_honest_one(folder, score):
    honest, collapsed = score(pictures(DRAWN, 5)), score(pictures(2, 5).repeat(DRAWN // 2, 0))
    for key in (LITE1, "fd_effnet_lite2"):
        assert collapsed[key]["val"] > 2 * honest[key]["val"]
        assert collapsed[key]["val"] > 2 * reference(folder)[key]["floor"]


def test_what_the_audit_names_copies_does_not_count(score):
    copies, bad = build_reference.take("train", DRAWN)[1], pictures(1, 5).repeat(DRAWN // 2, 0)
    mixed = np.concatenate([copies[: DRAWN // 2], bad])
    honest, named = score(mixed)[LITE1], score(mixed, copies=DRAWN // 2)[LITE1]
    assert named["val"] == honest["val"]
    assert named["uncopied"] > 1.5 * honest["uncopied"]


def test_a_row_that_is_accused_as_a_whole_is_not_ranked(score):
    scored = score(pictures(DRAWN, 5), vouched=False)
    assert "uncopied" not in scored[LITE1]
    assert "above_floor" in scored[LITE1]


def test_every_number_is_finite_and_none_is_called_fid(score):
    text = json.dumps(score(np.zeros((DRAWN, SIZE, SIZE, 3), np.uint8)), allow_nan=False)
    assert '"fid"' not in text
    assert '"images": 20' in text


def test_samples_of_another_row_are_not_scored(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    rows = {"rows": {"another": {"variant": "none", "context": "latents"}}}
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS | rows))
    identity = latents.read(Path("data/latents"), "val").identity
    about = {"size": str(SIZE), "row": "one", "latents": identity}
    table = pa.table({"image": files.bytes_column(pictures(3, 0))}, metadata=about)
    files.write_table(Path("data/samples/another/samples.parquet"), table)
    with pytest.raises(InputError, match=r"another/samples\.parquet: samples of row one, not of"):
        compute_fid.main("another")


def test_another_vqgan_than_that_of_the_latents_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    vqgan.save(Path("data/vqgan/vqgan.safetensors"), first_stage(seed=1))
    with pytest.raises(InputError, match=r"vqgan\.safetensors: not the VQ-GAN that encoded"):
        build_reference.main()


def test_a_reference_by_another_judge_is_named(folder, score):
    path = folder / "data/reference/val.parquet"
    kept = files.read_table(path)
    about = kept.schema.metadata | {b"judges": b'{"efficientnet_lite1": "of another size"}'}
    files.write_table(path, kept.replace_schema_metadata(about))
    try:
        with pytest.raises(InputError, match=r"val\.parquet: .*of another size"):
            score(pictures(DRAWN, 5))
    finally:
        files.write_table(path, kept)
