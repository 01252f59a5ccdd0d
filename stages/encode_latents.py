"""Encode every image once: its codes, and the codebook that makes latents of them.

Reads data/split and data/vqgan; writes data/latents: `train.parquet` and `val.parquet` with the
codes, `codebook.safetensors` with the codebook and the train latents' mean and standard deviation
per channel. Where the preset wants mirrors, those of the train images follow as rows of their own.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rissole.dataset import images
from rissole.first_stage import vqgan
from rissole.ground import config, runtime
from rissole.latent import latents

SPLIT, LATENTS = Path("data/split"), Path("data/latents")
BATCH = 64  # images; twice as fast on a CPU as 256


def main():
    settings = config.read()
    device = runtime.set_up(settings.threads)
    model = vqgan.load(Path("data/vqgan/vqgan.safetensors")).to(device)
    codebook = model.codebook().cpu()
    train, val = (images.read_split(SPLIT, name, pictures=False) for name in images.SPLITS)
    ids, originals, groups = train.ids, train.ids, np.array(train.groups, object)
    codes = encode(model, "train", len(ids), device)
    if settings.latents.mirrors:
        mirrored = encode(model, "train", len(ids), device, mirrored=True)
        codes, ids = torch.cat([codes, mirrored]), np.concatenate([ids, mirror_ids(ids)])
        originals, groups = np.tile(originals, 2), np.tile(groups, 2)
    val_codes = encode(model, "val", len(val.ids), device)
    moments = mean_and_std(codes, codebook)
    for name, columns in {
        "train": (ids, originals, groups, codes),
        "val": (val.ids, val.ids, np.array(val.groups, object), val_codes),
    }.items():
        latents.write(LATENTS, name, latents.Latents(*columns, codebook, *moments))
    size = sum(path.stat().st_size for path in LATENTS.iterdir())
    print(
        f"encode_latents: {len(ids):,} train and {len(val.ids):,} val latents of"
        f" {tuple(codes.shape[1:])} codes -> {LATENTS} ({size / 1e6:.1f} MB)"
    )


@torch.inference_mode()
def encode(
    model: vqgan.VQGAN, split: str, count: int, device: torch.device, mirrored: bool = False
) -> Tensor:
    """The codes of a split's `count` images, or of their mirrors, int32 (count, h, w)."""
    batches = (
        part.images[start : start + BATCH, :, :: -1 if mirrored else 1]
        for part in images.read_shards(SPLIT, split)
        for start in range(0, len(part.ids), BATCH)
    )
    name = f"encode_latents {split}" + " mirrored" * mirrored
    batches = runtime.progress(batches, name, " images", -(-count // BATCH), BATCH)
    codes = [model.encode(images.to_float(x.copy()).to(device)).int().cpu() for x in batches]
    return torch.cat(codes)


def mirror_ids(ids: np.ndarray) -> np.ndarray:
    """An id for each image's mirror, made of the image's own, as a symmetric picture needs two."""
    digests = (hashlib.sha256(b"mirror of" + number.tobytes()).digest()[:8] for number in ids)
    return np.frombuffer(b"".join(digests), "<i8")


def mean_and_std(codes: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of the latents `codebook[codes]`, float32 (c,)."""
    shares = torch.bincount(codes.flatten(), minlength=len(codebook)).double() / codes.numel()
    mean = shares @ codebook.double()
    std = (shares @ (codebook.double() - mean).square()).sqrt()
    std[std == 0] = 1  # a channel that never changes stays as it is
    return mean.float(), std.float()


if __name__ == "__main__":
    runtime.run(main)
