"""Judges: frozen networks whose features the scores compare, none of them used in training.

Two of them, a first and a second opinion. EfficientNet-lite1 and lite2 come from the package index;
lite0 is the loss network and so cannot judge. Where a file of Inception weights is given, Inception
comes first, and its distances alone are FID and KID.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rissole import compat, efficientnet, files, runtime, schema
from rissole.errors import InputError

Judge = Callable[[np.ndarray], np.ndarray]

INCEPTION = "6726825d"  # how the SHA-256 of weights-inception-2015-12-05-6726825d.pth begins
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


def open(settings: schema.Judge, device: torch.device | str = "cpu") -> dict[str, Judge]:
    """The first and the second judge, by name.

    Each is called with pictures, uint8 (n, h, w, 3), and gives their features, float32 (n, d), in
    batches behind a progress line; they do not depend on the batch.

    Raises:
        InputError: the Inception file is missing or another one.
    """
    judges = {}
    if settings.inception is not None:
        judges["inception"] = _inception(Path(settings.inception))
    for name in ("efficientnet_lite1", "efficientnet_lite2"):
        judges.setdefault(name, _efficientnet(name, settings.size))
    first_two = list(judges.items())[:2]
    return {name: partial(_features, name, net.to(device), settings) for name, net in first_two}


@torch.inference_mode()
def _features(name: str, net: nn.Module, settings: schema.Judge, images: np.ndarray) -> np.ndarray:
    device = next(net.parameters()).device
    starts = range(0, len(images), settings.batch)
    batches = [
        net(torch.tensor(images[start : start + settings.batch], device=device).movedim(-1, 1))
        for start in runtime.progress(starts, name, " images", scale=settings.batch)
    ]
    return torch.cat(batches).float().cpu().numpy()


class _EfficientNet(nn.Module):
    """Laid out channels last and without copies of activations: 3x as fast on a CPU."""

    def __init__(self, net: nn.Module, size: int):
        super().__init__()
        self.net, self.size = net.to(memory_format=torch.channels_last), size
        for module in net.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = True

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, 1280) of pictures uint8 (b, 3, h, w)."""
        x = F.interpolate(x.float(), (self.size, self.size), mode="bilinear", antialias=True)
        return efficientnet.pooled(self.net, x.contiguous(memory_format=torch.channels_last))


def _efficientnet(name: str, size: int) -> nn.Module:
    return _EfficientNet(efficientnet.load(name), size)


def _inception(path: Path) -> nn.Module:
    key = f"params.yaml: judge.inception is '{path}'"
    mend = f"fetch {INCEPTION_URL} and name its path, or leave the key empty"
    if not path.is_file():
        raise InputError(f"{key}: no such file; {mend}")
    if not files.digest(path).startswith(INCEPTION):
        raise InputError(
            f"{key}: its SHA-256 begins with {files.digest(path)[:8]}, not {INCEPTION}: {mend}"
        )
    compat.arm()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    return _Only(net)


class _Only(nn.Module):
    """The one kind of features that an extractor of torch-fidelity was asked for."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, 2048) of pictures uint8 (b, 3, h, w)."""
        return self.extractor(x)[0]
