"""Stages extract_features and compute_fid, from files to numbers."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

import compute_fid
import extract_features
from rissole import config, files, images, latents, schema, scores, vqgan
from rissole.errors import InputError

SIZE, DRAWN = 16, 20
SETTINGS = {
    "preset": "quick",
    "seed": 0,
    "threads": 1,
    "sample": {"images": DRAWN, "sampler": "ddim", "steps": 2, "batch": 8},
    "judge": {"size": 64, "inception": None, "batch": 16},
    "presets": {"quick": {}},
}


def pictures(n, seed):
    """Coloured squares on coloured ground, uint8 (n, SIZE, SIZE, 3)."""
    draw = np.random.default_rng(seed)
    x = np.empty((n, SIZE, SIZE, 3), np.uint8)
    x[:] = draw.integers(0, 256, (n, 1, 1, 3))
    x[:, 4:12, 4:12] = draw.integers(0, 256, (n, 1, 1, 3))
    return x


def split_table(ids, x):
    """The columns of data/split that are read here."""
    nothing = pa.nulls(len(ids), pa.string())
    columns = {"id": pa.array(ids), "label": nothing, "group": nothing, "source": nothing}
    table = pa.table(columns | {"image": files.bytes_column(x)})
    return table.replace_schema_metadata({"size": str(SIZE)})


def first_stage():
    """A small untrained VQ-GAN."""
    params = yaml.safe_load(Path(config.__file__).parents[2].joinpath("params.yaml").read_text())
    torch.manual_seed(0)
    changes = {"widths": [8, 8], "perceptual": "none", "steps": 1}
    return vqgan.VQGAN(schema.VQGAN(**(params["vqgan"] | changes))).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project whose first stage is there; features and reference are extracted in it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    model = first_stage()
    vqgan.save(folder / "data/vqgan/vqgan.safetensors", model)
    codebook = model.codebook()
    for split, n, seed in (("train", 60, 1), ("val", 40, 2)):
        ids, x = np.arange(n) * 7 - 100 + seed, pictures(n, seed)
        for number, rows in enumerate(np.array_split(np.arange(n), 3)):
            path = folder / f"data/split/{split}-{number:05}.parquet"
            files.write_table(path, split_table(ids[rows], x[rows]))
        with torch.no_grad():
            codes = model.encode(images.to_float(x)).int()
        about = {"mean": codebook.mean(0), "std": codebook.std(0)}
        order = np.random.default_rng(3).permutation(n)
        encoded = latents.Latents(
            ids[order], ids[order], np.array([None] * n), codes[order], codebook, **about
        )
        latents.write(folder / "data/latents", split, encoded)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        extract_features.main()
    return folder


@pytest.fixture
def score(folder, monkeypatch):
    """Score pictures as the samples of a row."""
    monkeypatch.chdir(folder)

    def score(x):
        table = pa.table({"image": files.bytes_column(x)})
        table = table.replace_schema_metadata({"size": str(SIZE)})
        files.write_table(Path("data/samples/row/samples.parquet"), table)
        compute_fid.main("row")
        return files.read_json(Path("metrics/fid/row.json"))

    return score


def features(folder, name, judge="efficientnet_lite1"):
    """Written features (n, d) of a set of images."""
    return files.lists_array(files.read_table(folder / f"data/features/{name}.parquet")[judge])


def test_features_are_in_the_order_of_the_ids_beside_them(folder):
    for name, n in (("val", 40), ("train", 40), ("reconstructed", 40)):
        table = files.read_table(folder / f"data/features/{name}.parquet")
        assert len(set(table["id"].to_pylist())) == n
    val = files.read_table(folder / "data/features/val.parquet")["id"]
    assert val == files.read_table(folder / "data/features/reconstructed.parquet")["id"]


def test_each_reconstruction_is_that_of_its_own_image(folder, monkeypatch):
    monkeypatch.chdir(folder)
    ids, x = extract_features.take("val", 9)
    made = extract_features.reconstruct("val", ids, 4, torch.device("cpu"))
    with torch.no_grad():
        expected = first_stage()(images.to_float(x))[0]
    assert np.abs(made.astype(int) - images.to_uint8(expected)).max() <= 1


def test_the_reference_holds_the_distances_that_belong_to_no_row(folder):
    reference = files.read_json(folder / "metrics/reference.json")
    expected = scores.frechet(features(folder, "reconstructed"), features(folder, "val"))
    assert reference["fd_effnet_lite1"]["reconstructed"] == pytest.approx(expected, rel=1e-4)
    assert reference["images"] == {"drawn": DRAWN, "train": 40, "val": 40}
    assert reference["fd_effnet_lite1"]["floor"] < reference["fd_effnet_lite1"]["reconstructed"]


def test_a_collapsed_set_scores_far_worse_than_an_honest_one(folder, score):
    reference = files.read_json(folder / "metrics/reference.json")
    honest, collapsed = score(pictures(DRAWN, 5)), score(pictures(2, 5).repeat(DRAWN // 2, 0))
    for key in ("fd_effnet_lite1", "fd_effnet_lite2"):
        assert collapsed[key]["val"] > 2 * honest[key]["val"]
        assert collapsed[key]["val"] > 2 * reference[key]["floor"]


def test_copies_of_train_images_are_nearer_to_train_than_to_val(folder, score, monkeypatch):
    monkeypatch.chdir(folder)
    copied = score(extract_features.take("train", DRAWN)[1])["fd_effnet_lite1"]
    assert copied["train"] < 0.9 * copied["val"]


def test_reconstructions_are_nearer_to_reconstructions_than_to_images(folder, score, monkeypatch):
    monkeypatch.chdir(folder)
    ids, _ = extract_features.take("train", DRAWN)
    made = extract_features.reconstruct("train", ids, 4, torch.device("cpu"))
    scored = score(made)["fd_effnet_lite1"]
    assert scored["reconstructed"] < 0.5 * scored["val"]
    of = files.read_json(folder / "metrics/reference.json")["fd_effnet_lite1"]
    assert of["perfect_reconstructed"] == pytest.approx(scored["reconstructed"], rel=0.3)


def test_every_number_is_finite_and_none_is_called_fid(score):
    text = json.dumps(score(np.zeros((DRAWN, SIZE, SIZE, 3), np.uint8)), allow_nan=False)
    assert '"fid"' not in text
    assert '"images": 20' in text


def test_samples_of_another_size_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    table = pa.table({"image": files.bytes_column(pictures(3, 0))})
    path = Path("data/samples/other/samples.parquet")
    files.write_table(path, table.replace_schema_metadata({"size": str(SIZE * 2)}))
    with pytest.raises(InputError, match="another preset"):
        compute_fid.main("other")


def test_features_of_another_judge_are_named(folder, score, monkeypatch, tmp_path):
    path = folder / "data/features/val.parquet"
    kept = files.read_table(path)
    files.write_table(path, kept.drop_columns("efficientnet_lite2"))
    try:
        with pytest.raises(InputError, match=r"val\.parquet"):
            score(pictures(DRAWN, 5))
    finally:
        files.write_table(path, kept)
