"""Train the denoiser of one variant (paper, sections 4.1.3 and 4.2).

Reads the latents and, for variants that retrieve, the neighbour tables. Writes the averaged weights
with the lowest validation loss, and the last ones, to data/ldm/<variant>; the loss curve to
metrics/loss/<variant>.csv; parameters, GFLOP and time to metrics/ldm/<variant>.json.
"""

import math
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from rissole.denoiser import denoiser, training
from rissole.denoiser.conditioning import Conditioning
from rissole.ground import config, files, runtime, schema
from rissole.ground.errors import InputError
from rissole.latent import latents
from rissole.latent.latents import read_neighbours


def main(name: str) -> None:
    """Train one variant."""
    settings = config.read()
    variant, ldm = settings.variant(name), settings.variant_ldm(name)
    device = runtime.set_up(settings.threads)
    database = latents.read(Path("data/latents"), "train").to(device)
    train, val = (read_images(variant, split, database, device) for split in ("train", "val"))
    k = 0 if train.neighbours is None else train.neighbours.shape[1]
    conditioning = Conditioning(variant, database, ldm.normalise)

    torch.manual_seed(runtime.seeded(variant.seed))
    network = denoiser.Denoiser(variant, ldm, database.codebook.shape[1], k).to(device)
    averaged = training.averaging(network, ldm.average)

    folder, curve, best, start = Path(f"data/ldm/{name}"), [], float("inf"), time.perf_counter()
    steps = training.train(network, averaged, conditioning, ldm, variant.seed, train, val)
    for done in runtime.progress(steps, f"train_ldm {name}", " images", ldm.steps, ldm.batch):
        curve.append({"loss": done.loss})
        if done.validation is not None:
            curve[-1]["validation"] = done.validation
        if done.validation is not None and done.validation < best:
            best = done.validation
            denoiser.save(folder / "best.safetensors", averaged.module, step=done.step)
    seconds = time.perf_counter() - start
    if not math.isfinite(best):
        raise InputError(
            f"params.yaml: ldm.learning_rate is {ldm.learning_rate}: the training of {name}"
            " diverged; lower it, or set ldm.clip"
        )
    denoiser.save(folder / "last.safetensors", averaged.module, step=ldm.steps)

    files.write_curve(files.measured("loss", name, "csv"), curve)
    live = sum(p.numel() for p in network.parameters() if p.grad is not None and p.grad.any())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        training.block_loss(network, conditioning, ldm, train, torch.tensor([0], device=device))
    files.write_json(
        files.measured("ldm", name),
        {
            "parameters_live": live,
            "gflop_per_image_step": round(counter.get_total_flops() / 1e9, 4),
            "train_seconds": round(seconds, 1),
            "train_images_per_second": round(ldm.steps * ldm.batch / seconds, 1),
            "train_peak_mb": runtime.peak_memory(device),
            "images_seen": ldm.steps * ldm.batch,
            "validation_loss": best,
        },
    )
    print(
        f"train_ldm {name}: {live / 1e6:.2f} M parameters, {ldm.steps * ldm.batch:,} images in"
        f" {seconds:.0f} s, validation loss {best:.4f} -> data/ldm/{name}"
    )


def read_images(variant: schema.Variant, split: str, database: latents.Latents, device):
    """The codes of a split and, where the variant retrieves, the neighbours of its images."""
    images = database if split == "train" else latents.read(Path("data/latents"), split).to(device)
    if variant.neighbours == "none":
        return training.Images(images.codes, None)
    ids, neighbours = read_neighbours(Path(f"data/{variant.context}/{split}.parquet"), database)
    codes = images.codes[torch.from_numpy(images.rows(ids)).to(device)]
    return training.Images(codes, neighbours.to(device))


if __name__ == "__main__":
    runtime.run(main)
