"""How alike images are: to each other, and to one of them; by cosine."""

import torch
import torch.nn.functional as F
from torch import Tensor


def agreement(near: Tensor) -> Tensor:
    """The mean cosine of two of k > 1 images, float (q,), of q times k of them, (q, k, ...)."""
    near = F.normalize(near.flatten(2), dim=2)
    k = near.shape[1]
    return (near.sum(1).square().sum(1) - k) / (k * (k - 1))  # k pairs are of one with itself


def similarity(images: Tensor, near: Tensor) -> Tensor:
    """The cosines of images (q, ...) to k others each, (q, k, ...), as float (q, k)."""
    return torch.cosine_similarity(images.flatten(1)[:, None], near.flatten(2), dim=2)
