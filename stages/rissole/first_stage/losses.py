"""What a reconstruction is judged by while the first stage learns.

Images are (b, 3, H, W) of range -1..1; every term is a mean over the images.
"""

from pathlib import Path

from rissole.core import processes
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.pretrained import efficientnet, weights

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VGG16 = "vgg16-397923af.pth"


def reconstruction(x: Tensor, x_hat: Tensor, l1: float, l2: float) -> Tensor:
    """Weighted sum of the mean absolute and the mean squared error."""
    return l1 * F.l1_loss(x_hat, x) + l2 * F.mse_loss(x_hat, x)


def perceptual(settings: VQGANSettings) -> nn.Module | None:
    """The distance network that the settings name, frozen; None where they name none.

    Raises:
        InputError: a file of the LPIPS weights is missing.
    """
    if settings.perceptual == "none" or settings.perceptual_weight == 0:
        return None
    if settings.perceptual == "lpips":
        return LPIPS(Path(settings.lpips_weights))
    return LiteDistance()


def given_weights(settings: VQGANSettings) -> list[Path]:
    """The files of the user's that the distance is made of, as far as they are there."""
    if settings.perceptual != "lpips":
        return []
    heads = Path(settings.lpips_weights)
    return [path for path in (heads, heads.with_name(VGG16)) if path.exists()]


class LiteDistance(nn.Module):
    """Squared distance of EfficientNet-lite0's shallow features, mean over three depths.

    At each position the features have unit length, so that a depth counts from 0 to 4.
    """

    def __init__(self):
        super().__init__()
        # Depthwise convolutions are slow otherwise: it saves a tenth of a training step on a CPU.
        self.net = efficientnet.load("efficientnet_lite0").to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The mean distance, 0 for equal images; gradients flow to `x_hat`."""
        with torch.no_grad():
            true = efficientnet.shallow(self.net, (x + 1) * 127.5)
        seen = efficientnet.shallow(self.net, (x_hat + 1) * 127.5)
        pairs = zip(true, seen, strict=True)
        return torch.stack([_unit_distance(a, b).sum(1).mean() for a, b in pairs]).mean()


class LPIPS(nn.Module):
    """LPIPS (Zhang et al. 2018, version 0.1) on a trained VGG16.

    Args:
        heads: file of the weights of its linear layers, `weights-vgg16-lpips.pth` of
            torch-fidelity's releases; torchvision's `vgg16-397923af.pth` must lie beside it. The
            layers alone, on an untrained VGG16, would compare random features.
    """

    def __init__(self, heads: Path):
        super().__init__()
        ends, body = _weights(heads), _weights(heads.with_name(VGG16))
        layers, width_in = [], 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
            if width:
                layers += [nn.Conv2d(width_in, width, 3, 1, 1), nn.ReLU()]
                width_in = width
            else:
                layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.body.load_state_dict(
            {k.removeprefix("features."): v for k, v in body.items() if k.startswith("features.")}
        )
        self.heads = nn.ParameterList(ends[f"lin{i}.model.1.weight"] for i in range(5))
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The mean distance, 0 for equal images; gradients flow to `x_hat`."""
        with torch.no_grad():
            true = self._features(x)
        pairs = zip(self.heads, true, self._features(x_hat), strict=True)
        return sum((_unit_distance(a, b) * head).sum(1).mean() for head, a, b in pairs)

    def _features(self, x: Tensor) -> list[Tensor]:
        x, features = (x - self.mean) / self.std, []
        for number, layer in enumerate(self.body):
            x = layer(x)
            if number in (3, 8, 15, 22, 29):
                features.append(x)
        return features


def discriminator(layers: int) -> nn.Sequential:
    """A patch discriminator: images to a map of scores, high for true patches.

    Args:
        layers: strided convolutions, of widths 32, 64, 128, 128 ... (released code).
    """
    widths = [3, *(min(32 * 2**i, 128) for i in range(layers))]
    modules = []
    for i in range(layers):
        modules += [nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1)]
        modules += [nn.BatchNorm2d(widths[i + 1])] if i else []
        modules += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def hinge(true: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss on its scores of true and of reconstructed images."""
    return (F.relu(1 - true).mean() + F.relu(1 + made).mean()) / 2


def adaptive_weight(loss: Tensor, adversarial: Tensor, last: Tensor, weight: float, cap: float):
    """What the adversarial term is multiplied by, at most `cap`.

    `weight` times the ratio of the two terms' gradient norms at the decoder's `last` layer (Esser
    et al. 2021). Both terms come in unweighted: a weight inside the ratio would cancel out, as it
    did in the released code. Uncapped, the weight blows up when the term is switched on.
    """
    own, other = (
        processes.mean_(torch.autograd.grad(term, last, retain_graph=True)[0])
        for term in (loss, adversarial)
    )
    return (weight * own.norm() / (other.norm() + 1e-6)).clamp(max=cap).detach()


def _unit_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared differences of features (b, c, h, w), each position's channels of unit length."""
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square()


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise InputError(
            f"params.yaml: vqgan.perceptual is lpips, but {path} does not exist: let"
            " vqgan.lpips_weights name weights-vgg16-lpips.pth of torch-fidelity's releases, with"
            f" torchvision's {VGG16} beside it, or set vqgan.perceptual to efficientnet_lite0"
        )
    return weights.read(path)
