"""The terms of the first stage's loss."""

import toy
from rissole.first_stage import losses
from rissole.first_stage.losses import LPIPS, LiteDistance
from rissole.harness.errors import InputError

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SETTINGS = toy.vqgan(perceptual="lpips", lpips_weights="lpips.pth")


def pictures(n=2, size=32) -> torch.Tensor:
    """Smooth random pictures of range -1..1."""
    small = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(small, (size, size), mode="nearest") * 2 - 1


def blurred(x: torch.Tensor, radius: int) -> torch.Tensor:
    return F.avg_pool2d(F.pad(x, (radius,) * 4, "replicate"), 2 * radius + 1, 1)


@pytest.fixture(scope="module")
def lite() -> LiteDistance:
    return LiteDistance()


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    """Files of the form of the published ones, with random weights."""
    torch.manual_seed(0)
    folder, body, width_in, number = tmp_path_factory.mktemp("lpips"), {}, 3, 0
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        if width:
            weight = torch.randn(width, width_in, 3, 3) * (2 / (9 * width_in)) ** 0.5
            body[f"features.{number}.weight"] = weight
            body[f"features.{number}.bias"] = 0.1 * torch.randn(width)
            width_in = width
        number += 2 if width else 1
    body["classifier.0.bias"] = torch.zeros(3)  # left unread
    torch.save(body, folder / losses.VGG16)
    widths = [64, 128, 256, 512, 512]
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(widths)}
    torch.save(heads, folder / "weights-vgg16-lpips.pth")
    return folder / "weights-vgg16-lpips.pth"


def test_reconstruction_weighs_absolute_and_squared_errors():
    x, x_hat = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert losses.reconstruction(x, x_hat, 2.0, 4.0) == pytest.approx(2 * 0.5 + 4 * 0.25)


def test_a_perceptual_distance_is_zero_for_equal_images_and_grows_with_blur(lite):
    x = pictures()
    distances = [lite(x, blurred(x, radius)).item() for radius in (1, 2, 4)]
    assert lite(x, x) == 0
    assert 0 < distances[0] < distances[1] < distances[2]


def test_a_perceptual_distance_teaches_the_reconstruction_and_not_its_network(lite):
    x_hat = blurred(pictures(), 2).requires_grad_()
    lite(pictures(), x_hat).backward()
    assert x_hat.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lite.parameters())


def test_lpips_is_that_of_torch_fidelity(lpips_file, monkeypatch):
    from torch_fidelity import sample_similarity_lpips as theirs
    from torchvision.models import vgg

    vgg16 = nn.ModuleDict({"features": vgg.make_layers(vgg.cfgs["D"])})
    body = torch.load(lpips_file.with_name(losses.VGG16), weights_only=True)
    vgg16.load_state_dict({k: v for k, v in body.items() if k.startswith("features.")})
    vgg16.features = vgg16["features"]
    heads = torch.load(lpips_file, weights_only=True)
    monkeypatch.setattr(theirs, "torchvision_load_pretrained_vgg16", lambda: vgg16)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: heads)
    expected = theirs.SampleSimilarityLPIPS("lpips")
    x, x_hat = pictures(), blurred(pictures(), 2)
    reference = expected((x + 1) * 127.5, (x_hat + 1) * 127.5).mean()
    torch.testing.assert_close(LPIPS(lpips_file)(x, x_hat), reference, rtol=1e-3, atol=1e-5)


def test_missing_lpips_weights_are_named(tmp_path, lpips_file):
    path = str(tmp_path / "lpips.pth")
    with pytest.raises(InputError, match="lpips.pth does not exist"):
        losses.perceptual(SETTINGS.model_copy(update={"lpips_weights": path}))
    (tmp_path / "lpips.pth").write_bytes(lpips_file.read_bytes())
    with pytest.raises(InputError, match=f"{losses.VGG16} does not exist"):
        losses.perceptual(SETTINGS.model_copy(update={"lpips_weights": path}))


def test_no_distance_network_is_loaded_where_it_would_not_count():
    assert losses.perceptual(SETTINGS.model_copy(update={"perceptual": "none"})) is None
    assert losses.perceptual(SETTINGS.model_copy(update={"perceptual_weight": 0.0})) is None


def test_the_discriminator_halves_the_side_once_a_layer():
    x = torch.zeros(2, 3, 64, 64)
    assert [losses.discriminator(n)(x).shape[2:] for n in (2, 3)] == [(15, 15), (7, 7)]


def test_the_hinge_stops_where_scores_are_right_enough():
    true, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert losses.hinge(true, made) == pytest.approx((0.25 + 0.5) / 2)


def test_the_adaptive_weight_balances_gradients_and_is_capped():
    last = torch.ones(3, requires_grad=True)
    loss, adversarial = (2 * last).sum(), (8 * last).sum()
    weight = losses.adaptive_weight(loss, adversarial, last, 0.4, 1.0)
    assert weight == pytest.approx(0.4 * 2 / 8, rel=1e-4)
    assert losses.adaptive_weight(loss, adversarial, last, 0.4, 0.05) == pytest.approx(0.05)
    assert not weight.requires_grad
