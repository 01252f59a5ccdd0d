"""Embeddings: of every image, by one encoder, told as they were retrieved; no other images'."""

from pathlib import Path

import build_index
import embed_images
import retrieve_neighbours
import test_encode_latents as encoding
import toy
from rissole.core import files
from rissole.harness.errors import InputError
from rissole.judging import judges
from rissole.judging.settings import JudgeSettings
from rissole.latent import embeddings, latents
from rissole.pretrained import encoder
from rissole.pretrained.settings import EncoderSettings

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
pixels = encoding.pixels  # a folder with a split of 130 train and 20 val images
PARAMS = """
threads: 1
seed: 0
k: 5
blocks: 2
query: embedding
exclude: self
queries: 100
latents: {{mirrors: {mirrors}}}
encoder: {{kind: efficientnet_lite0, weights: null, sha256: null, size: 64}}
index: {{kind: exact, exact_below: 1, tree_above: 2, leaves: null, searched: 0.1, reorder: 50,
  part_mb: 256}}
retrievals:
  rdm: {{}}
  main: {{query: first_block}}
"""
FOLDER = Path("data/embeddings")


class Colours(torch.nn.Module):
    """The mean colour of a picture: an encoder that is worth something on noise."""

    def forward(self, pictures):
        return pictures.mean((2, 3)) - 120


@pytest.fixture
def quick(monkeypatch):
    seen = encoder.Encoder(Colours(), "colours")
    monkeypatch.setattr(encoder, "open", lambda settings, device: seen)
    return seen


def embed(mirrors="false"):
    Path("params.yaml").write_text(PARAMS.format(mirrors=mirrors))
    embed_images.main()


def test_every_image_has_the_vector_of_its_picture_in_the_order_of_the_latents(pixels, quick):
    encoding.write_model()
    train, val = encoding.encode(mirrors=True)
    embed(mirrors="true")
    found = embeddings.read(FOLDER, "train", train.ids)
    expected = pixels[:130].reshape(130, -1, 3).mean(1) - 120
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    originals = found[train.ids == train.originals]
    np.testing.assert_allclose(originals, expected, atol=2e-3)
    mirrored = train.originals[train.ids != train.originals] - 100
    np.testing.assert_allclose(found[train.ids != train.originals], originals[mirrored], atol=2e-3)
    assert embeddings.read(FOLDER, "val", val.ids).shape == (20, 3)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(260), abs=1e-6)


def test_embeddings_of_other_images_are_refused(pixels, quick):
    embed()
    with pytest.raises(InputError, match="embeddings of train are of other images.*dvc repro"):
        embeddings.read(FOLDER, "train", np.arange(130) + 101)


def test_files_of_two_encoders_are_refused(pixels, quick):
    embed()
    path = FOLDER / "train-00001.parquet"
    ids = np.arange(150, 200)
    embeddings.write(path, ids, np.ones((50, 3)), encoder="another")
    with pytest.raises(InputError, match="train-00001.parquet: made by another encoder"):
        embeddings.read(FOLDER, "train", np.arange(100, 230))


def test_missing_embeddings_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="data/embeddings holds no embeddings of train images"):
        embeddings.encoder(FOLDER)


def test_a_table_by_embedding_holds_the_nearest_and_comes_with_what_is_told_of_them(pixels, quick):
    encoding.write_model()
    train, _ = encoding.encode()
    embed()
    build_index.main()
    retrieve_neighbours.main("rdm")
    _, rows = latents.read_neighbours(Path("data/neighbours/rdm/train.parquet"), train)
    vectors = embeddings.read(FOLDER, "train", train.ids)
    oracle = np.argsort(-(vectors @ vectors.T) + 9 * np.eye(130), axis=1)[:, :5]
    assert (rows.numpy() == oracle).mean() > 0.99
    told = embeddings.told(train, Path("data/neighbours/rdm"))
    np.testing.assert_allclose(told.embeddings, vectors, atol=1e-3)


def test_a_table_by_codes_comes_with_no_embeddings_and_an_index_of_another_encoder_is_refused(
    pixels, quick, monkeypatch
):
    encoding.write_model()
    train, _ = encoding.encode()
    embed()
    build_index.main()
    retrieve_neighbours.main("main")
    with pytest.raises(InputError, match=r"main/embeddings\.parquet does not exist"):
        embeddings.told(train, Path("data/neighbours/main"))
    monkeypatch.setattr(quick.net, "forward", lambda x: 9 - x.mean((2, 3)))
    monkeypatch.setattr(encoder, "open", lambda *_: encoder.Encoder(quick.net, "others"))
    embed()
    with pytest.raises(InputError, match=r"index\.json: built over other latents or embeddings"):
        retrieve_neighbours.main("rdm")


def test_embeddings_told_of_other_latents_are_refused(tmp_path):
    train = toy.latents()
    embeddings.write(tmp_path / "embeddings.parquet", train.ids, np.ones((12, 3)), latents="other")
    with pytest.raises(InputError, match="embeddings.parquet: made of other latents"):
        embeddings.told(train, tmp_path)


@pytest.fixture
def clip(tmp_path):
    """The folder of a CLIP of random weights, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def of_clip(folder, sha256=None):
    sha256 = sha256 or files.digest(folder / "model.safetensors")
    return EncoderSettings(kind="clip", weights=str(folder), sha256=sha256, size=64)


def test_a_clip_gives_what_transformers_says_it_gives(clip):
    transformers = pytest.importorskip("transformers")
    pictures = torch.rand(3, 3, 32, 32)
    found = encoder.open(of_clip(clip))(pictures * 2 - 1)
    net = transformers.CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    prepare = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    shown = prepare(images=list(pictures), do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        expected = net(**shown).image_embeds
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected), atol=1e-5, rtol=0)


def test_a_clip_of_another_digest_is_refused(clip):
    with pytest.raises(InputError, match="encoder.weights is .* not encoder.sha256 0000"):
        encoder.open(of_clip(clip, "0" * 64))


def test_a_clip_that_is_not_there_says_what_to_fetch(tmp_path):
    with pytest.raises(InputError, match="config.json does not exist; fetch the folder of a CLIP"):
        encoder.open(of_clip(tmp_path, "0" * 64))


def test_the_default_encoder_is_none_of_the_judges():
    settings = EncoderSettings(kind="efficientnet_lite0", weights=None, sha256=None, size=64)
    seen = encoder.open(settings)
    assert "efficientnet_lite0" in seen.key
    panel = judges.open(JudgeSettings(size=64, inception=None, batch=4))
    assert not any(name in seen.key for name in panel)
    vectors = seen(torch.rand(2, 3, 64, 64) * 2 - 1)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
