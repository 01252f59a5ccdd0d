"""Stage encode_latents: every image once, and its mirror where the preset wants it."""

from pathlib import Path

import encode_latents
from rissole.core import files
from rissole.dataset import images
from rissole.first_stage import vqgan
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.latent import latents

import numpy as np
import pyarrow as pa
import pytest
import torch

torch.set_num_threads(1)
SETTINGS = {
    **{"widths": [8, 16], "attention": "none", "quantiser": {"kind": "fsq", "levels": [4, 4, 3]}},
    **{"l1": 1.0, "l2": 1.0, "perceptual": "none", "perceptual_weight": 0.0},
    **{"perceptual_share": 1.0, "lpips_weights": None, "adversarial_weight": 0.0},
    **{"adversarial_cap": 0.0, "adversarial_start": 0.5, "discriminator_start": 0.5},
    **{"discriminator_layers": 2, "steps": 1, "batch": 2, "learning_rate": 0.001},
    **{"warm_up": 0, "decay_from": 1.0, "flips": True},
}


def write_model(**changes):
    torch.manual_seed(0)
    model = vqgan.VQGAN(VQGANSettings(**SETTINGS | changes)).eval()
    vqgan.save(Path("data/vqgan/vqgan.safetensors"), model)
    return model


def write_split(name, pixels, shard=50):
    """Write pictures uint8 (n, 16, 16, 3) as a split of the ids 100, 101, ... or, val, 900, ..."""
    first = {"train": 100, "val": 900}[name]
    for start in range(0, len(pixels), shard):
        part = pixels[start : start + shard]
        columns = {
            "id": np.arange(len(part)) + first + start,
            "label": pa.nulls(len(part), pa.string()),
            "group": pa.array([None, "g"] * len(part), pa.string())[: len(part)],
            "source": pa.nulls(len(part), pa.string()),
            "image": files.bytes_column(part),
        }
        table = pa.table(columns).replace_schema_metadata({"size": "16"})
        files.write_table(Path(f"data/split/{name}-{start // shard:05}.parquet"), table)


@pytest.fixture
def pixels(tmp_path, monkeypatch):
    """A folder with a split of 130 train images (three files) and 20 val images."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 16, 16, 3), np.uint8)
    write_split("train", pixels[:130])
    write_split("val", pixels[130:])
    return pixels


def encode(mirrors=False):
    Path("params.yaml").write_text(f"threads: 1\nlatents:\n  mirrors: {str(mirrors).lower()}\n")
    encode_latents.main()
    return (latents.read(Path("data/latents"), name) for name in images.SPLITS)


def test_every_image_is_encoded_once_in_its_order(pixels):
    model = write_model()
    train, val = encode()
    expected = torch.cat([model.encode(images.to_float(one[None])) for one in pixels])
    assert torch.equal(train.codes, expected[:130].int())
    assert torch.equal(val.codes, expected[130:].int())
    assert train.ids.tolist() == list(range(100, 230)) == train.originals.tolist()
    assert val.ids.tolist() == list(range(900, 920)) == val.originals.tolist()
    assert train.groups[:4].tolist() == [None, "g", None, "g"]
    assert len(train.codes.unique()) > 2


def test_mirrors_are_rows_of_their_own_tied_to_their_original(pixels):
    model = write_model()
    train, val = encode(mirrors=True)
    assert len(train) == 260 and len(val) == 20
    flipped = torch.cat([model.encode(images.to_float(x[None]).flip(3)) for x in pixels[:130]])
    for first, last in ((0, 50), (50, 100), (100, 130)):  # the files of the split
        own, mirrored = slice(2 * first, first + last), slice(first + last, 2 * last)
        assert train.originals[own].tolist() == train.originals[mirrored].tolist()
        assert train.originals[own].tolist() == list(range(100 + first, 100 + last))
        assert train.groups[own].tolist() == train.groups[mirrored].tolist()
        assert torch.equal(train.codes[mirrored], flipped[first:last].int())


def test_a_symmetric_pictures_mirror_has_an_id_of_its_own(pixels):
    half = pixels[:130, :, :8]
    write_split("train", np.concatenate([half, half[:, :, ::-1]], 2))
    write_model()
    train, _ = encode(mirrors=True)
    assert torch.equal(train.codes[:50], train.codes[50:100])
    assert len(set(train.ids)) == 260


def test_normalised_train_latents_have_mean_0_and_variance_1(pixels):
    write_model()
    train, _ = encode(mirrors=True)
    z = train.table(normalise=True)[train.codes].movedim(-1, 1).double()
    live = train.table(False)[train.codes.long()].flatten(0, 2).std(0) > 0
    assert live.any()
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5)
    assert torch.allclose(z.std((0, 2, 3), unbiased=False)[live], torch.ones(1).double())


def test_a_lost_file_is_made_again_and_no_other(pixels):
    write_model()
    encode()
    parts = sorted(Path("data/latents").glob("*.parquet"))
    before = {path: (path.stat().st_mtime_ns, files.digest(path)) for path in parts}
    assert len(parts) == 4
    parts[1].unlink()
    encode()
    for path in parts:
        written, digest = before[path]
        assert files.digest(path) == digest
        assert (path.stat().st_mtime_ns == written) == (path != parts[1])


def test_a_changed_model_makes_every_file_anew(pixels):
    write_model()
    train, _ = encode()
    torch.manual_seed(1)
    vqgan.save(Path("data/vqgan/vqgan.safetensors"), vqgan.VQGAN(VQGANSettings(**SETTINGS)).eval())
    again, _ = encode()
    assert not torch.equal(train.codes, again.codes)


def test_parts_encoded_by_workers_of_their_own_are_merged_by_the_last_call(pixels):
    write_model()
    encode()
    whole = {path.name: path.read_bytes() for path in Path("data/latents").iterdir()}
    for path in Path("data/latents").iterdir():
        path.unlink()
    for part in ("2/3", "1/3", "3/3"):
        encode_latents.main(part)
    assert not Path("data/latents/manifest.json").exists()
    encode()
    assert {path.name: path.read_bytes() for path in Path("data/latents").iterdir()} == whole


@pytest.mark.parametrize("part", ["0/3", "4/3", "a/b"])
def test_an_impossible_part_is_refused(pixels, part):
    write_model()
    encode()
    with pytest.raises(InputError, match=f"--part is '{part}'"):
        encode_latents.main(part)


def test_a_file_that_is_no_part_of_the_split_any_more_goes(pixels):
    write_model()
    encode()
    Path("data/split/train-00002.parquet").unlink()
    train, _ = encode()
    assert len(train) == 100
    assert not Path("data/latents/train-00002.parquet").exists()
