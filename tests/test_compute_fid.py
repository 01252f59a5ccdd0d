"""Stages build_reference, extract_features and compute_fid, from files to numbers."""

import json
import shutil
from pathlib import Path

import build_reference
import compute_fid
import extract_features
import toy
from rissole.auditing import coherence
from rissole.dataset import images
from rissole.first_stage import vqgan
from rissole.ground import files, runtime, schema
from rissole.ground.errors import InputError
from rissole.judging import features, frechet, scores
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
    return vqgan.VQGAN(schema.VQGAN(**(params["vqgan"] | changes))).eval()


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


def write_samples(x, row="row"):
    identity = latents.read(Path("data/latents"), "val").identity
    about = {"size": str(x.shape[1]), "row": row, "latents": identity}
    table = pa.table({"image": files.bytes_column(x)}, metadata=about)
    files.write_table(Path(f"data/samples/{row}/samples.parquet"), table)


def write_audit(x, copied, vouched=True):
    columns = {"copied": pa.array(copied), "vouched": pa.array([vouched] * len(x))}
    table = pa.table(columns, metadata={"images": features.digest(x)})
    files.write_table(Path("data/audit/row.parquet"), table)


@pytest.fixture
def score(folder, monkeypatch):
    """Score pictures as the samples of a row, of which the first `copies` are named copies."""
    monkeypatch.chdir(folder)

    def score(x, copies=0, vouched=True):
        write_samples(x)
        write_audit(x, np.arange(len(x)) < copies, vouched)
        extract_features.main("row")
        compute_fid.main("row")
        return files.read_json(Path("metrics/fid/row.json"))

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
    rows = runtime.evenly(40, 9)
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


def test_the_detectors_of_collages_are_those_that_their_figures_belong_to(folder, monkeypatch):
    monkeypatch.chdir(folder)
    train, val = (latents.read(Path("data/latents"), split) for split in ("train", "val"))
    detectors = coherence.load(Path("data/reference/collages.safetensors"), train.identity)
    z = val.look_up(train.table(normalise=True))
    found = reference(folder)["coherence"]
    assert found["collages"] == pytest.approx(coherence.collage_rate(detectors, z), abs=1e-4)
    assert found["colour_correlation"] == pytest.approx(
        coherence.colour_correlation(z, 2), abs=1e-4
    )


def test_a_collapsed_set_scores_far_worse_than_an_honest_one(folder, score):
    honest, collapsed = score(pictures(DRAWN, 5)), score(pictures(2, 5).repeat(DRAWN // 2, 0))
    for key in (LITE1, "fd_effnet_lite2"):
        assert collapsed[key]["val"] > 2 * honest[key]["val"]
        assert collapsed[key]["val"] > 2 * reference(folder)[key]["floor"]


def test_copies_of_train_images_are_nearer_to_train_than_to_val(folder, score):
    copied = score(build_reference.take("train", DRAWN)[1])[LITE1]
    assert copied["train"] < 0.9 * copied["val"]


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


def test_reconstructions_are_nearer_to_reconstructions_than_to_images(folder, score):
    ids, _ = build_reference.take("train", DRAWN)
    scored = score(reconstruct("train", ids))[LITE1]
    assert scored["reconstructed"] < 0.5 * scored["val"]
    of = reference(folder)[LITE1]
    assert of["perfect_reconstructed"] == pytest.approx(scored["reconstructed"], rel=0.3)


def test_every_number_is_finite_and_none_is_called_fid(score):
    text = json.dumps(score(np.zeros((DRAWN, SIZE, SIZE, 3), np.uint8)), allow_nan=False)
    assert '"fid"' not in text
    assert '"images": 20' in text


def test_equal_pictures_have_equal_files_of_features(score):
    path = Path("data/features/row.parquet")
    score(pictures(DRAWN, 5))
    first = path.read_bytes()
    score(pictures(DRAWN, 6))
    assert path.read_bytes() != first
    score(pictures(DRAWN, 5))
    assert path.read_bytes() == first


def test_samples_of_another_size_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    table = pa.table({"image": files.bytes_column(pictures(3, 0))})
    path = Path("data/samples/other/samples.parquet")
    files.write_table(path, table.replace_schema_metadata({"size": str(SIZE * 2)}))
    with pytest.raises(InputError, match="another preset"):
        extract_features.main("other")


def test_samples_of_another_row_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_samples(pictures(3, 0), "one")
    Path("data/samples/one").rename("data/samples/another")
    with pytest.raises(InputError, match=r"samples/another/samples\.parquet: samples of another"):
        extract_features.main("another")


def test_another_vqgan_than_that_of_the_latents_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    vqgan.save(Path("data/vqgan/vqgan.safetensors"), first_stage(seed=1))
    with pytest.raises(InputError, match=r"vqgan\.safetensors: not the VQ-GAN that encoded"):
        build_reference.main()


def test_an_audit_of_other_images_is_refused_with_the_command_that_makes_another(score):
    score(pictures(DRAWN, 5))
    write_audit(pictures(DRAWN, 6), [False] * DRAWN)
    with pytest.raises(InputError, match=r"audit/row\.parquet: .*`dvc repro audit_samples@row`"):
        compute_fid.main("row")


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
