"""Judges: frozen networks whose features the scores compare, none of them used in training.

Two of them, a first and a second opinion. EfficientNet-lite1 and lite2 come from the package index;
lite0 is the loss network and so cannot judge. Where a file of Inception weights is given, Inception
comes first, and its distances alone are FID and KID.
"""

from dataclasses import dataclass
from pathlib import Path

from rissole.core import files, processes
from rissole.harness.errors import InputError
from rissole.harness.progress import progress
from rissole.judging.settings import JudgeSettings
from rissole.pretrained import compat, efficientnet, weights

import numpy as np
import torch
from torch import Tensor, nn

INCEPTION = "6726825d"  # how the SHA-256 of weights-inception-2015-12-05-6726825d.pth begins
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


@dataclass(frozen=True)
class Judge:
    """A frozen network that looks at pictures.

    Attributes:
        name: of the network.
        net: gives features float (b, d) of pictures uint8 (b, 3, h, w).
        batch: pictures looked at together; features do not depend on it.
        key: tells weights, resize and version apart; only features of one key are comparable.
    """

    name: str
    net: nn.Module
    batch: int
    key: str

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (n, d) of pictures uint8 (n, h, w, 3), behind a progress line."""
        device = next(self.net.parameters()).device
        starts = range(0, len(images), self.batch)

        def look(start: int) -> np.ndarray:
            pictures = torch.tensor(images[start : start + self.batch], device=device)
            return self.net(pictures.movedim(-1, 1)).float().cpu().numpy()

        seen = []
        with progress(self.name, " images", len(starts), self.batch) as advance:
            for _, features in processes.in_turn(starts, look):
                seen.append(features)
                advance()
        return np.concatenate(seen)


def open(settings: JudgeSettings, device: torch.device | str = "cpu") -> dict[str, Judge]:
    """The first and the second judge, by name.

    Raises:
        InputError: the Inception file is missing or another one.
    """
    nets = {}
    if settings.inception is not None:
        nets["inception"] = _inception(Path(settings.inception))
    for name in ("efficientnet_lite1", "efficientnet_lite2"):
        nets.setdefault(name, efficientnet.Pooled(efficientnet.load(name), settings.size))
    return {
        name: Judge(name, net.to(device), settings.batch, f"{net.resize} {weights.version(net)}")
        for name, net in list(nets.items())[:2]
    }


def _inception(path: Path) -> nn.Module:
    key = f"params.yaml: judge.inception is '{path}'"
    mend = f"fetch {INCEPTION_URL} and name its path, or leave the key empty"
    if not path.is_file():
        raise InputError(f"{key}: no such file; {mend}")
    if not files.digest(path).startswith(INCEPTION):
        raise InputError(
            f"{key}: its SHA-256 begins with {files.digest(path)[:8]}, not {INCEPTION}: {mend}"
        )
    weights.read(path)  # torch-fidelity would run what is in it
    compat.arm()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    return _Only(net)


class _Only(nn.Module):
    """The one kind of features that an extractor of torch-fidelity was asked for."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor, self.resize = extractor, "tensorflow-bilinear-299"

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, 2048) of pictures uint8 (b, 3, h, w)."""
        return self.extractor(x)[0]
