"""What sees an image as a whole: for retrieval by embedding, and for what RDM tells its denoiser.

Never one of the judges: who scores the samples must not have chosen what they are made of.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rissole.core import files
from rissole.harness.errors import InputError
from rissole.pretrained import compat, efficientnet, weights
from rissole.pretrained.settings import EncoderSettings

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoder:
    """A frozen network that gives a vector for a picture.

    Attributes:
        net: gives float (b, d) of pictures (b, 3, h, w) in the range 0..255.
        key: tells kind, weights and size apart.
    """

    net: nn.Module
    key: str

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Vectors of length 1, float32 (b, d), of pictures float (b, 3, h, w) in -1..1."""
        return F.normalize(self.net((pictures + 1) * 127.5).float(), dim=1)


def open(settings: EncoderSettings, device: torch.device | str = "cpu") -> Encoder:
    """The encoder that section `encoder` names.

    Raises:
        InputError: a CLIP's files are missing, broken or others than the digest says, or the
            library that knows it is not installed.
    """
    if settings.kind == "clip":
        net, key = _CLIP(_clip(Path(settings.weights), settings.sha256)), settings.sha256
    else:
        net = efficientnet.Pooled(efficientnet.load(settings.kind), settings.size)
        key = f"{net.resize} {weights.version(net)}"
    return Encoder(net.to(device), f"{settings.kind} {key}")


class _CLIP(nn.Module):
    """The image half of a CLIP (Radford et al. 2021, arXiv 2103.00020), its projection included."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.side = net, net.config.image_size
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pictures: Tensor) -> Tensor:
        size = (self.side, self.side)
        x = F.interpolate(pictures / 255, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.net((x - self.mean) / self.std).image_embeds


def _clip(folder: Path, digest: str) -> nn.Module:
    key, weights = f"params.yaml: encoder.weights is '{folder}'", folder / "model.safetensors"
    for path in (folder / "config.json", weights):
        if not path.is_file():
            raise InputError(
                f"{key}: {path} does not exist; fetch the folder of a CLIP in the format of"
                " `transformers`, such as openai/clip-vit-base-patch32, or choose another"
                " encoder.kind"
            )
    if files.digest(weights) != digest:
        raise InputError(
            f"{key}: the SHA-256 of {weights} is {files.digest(weights)}, not encoder.sha256"
            f" {digest}; fetch it again, or correct the digest"
        )
    if find_spec("transformers") is None:
        raise InputError(
            "params.yaml: encoder.kind is 'clip': the package transformers, which knows it, is not"
            " installed; `pip install transformers`"
        )
    compat.arm()
    from transformers import CLIPVisionModelWithProjection

    net = CLIPVisionModelWithProjection.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    return net.eval().requires_grad_(False)
