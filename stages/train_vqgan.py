"""Train the first stage, a VQ-GAN (paper, section 3).

Reads data/split. Writes the model to data/vqgan, the loss curve to metrics/loss/vqgan.csv, and
metrics/reconstructions.png: val images above their reconstructions.
"""

import time
from pathlib import Path

from rissole.dataset import images
from rissole.first_stage import training, vqgan
from rissole.ground import config, files, runtime

import numpy as np
import torch

SPLIT, MODEL = Path("data/split"), Path("data/vqgan/vqgan.safetensors")
CURVE, PICTURE = Path("metrics/loss/vqgan.csv"), Path("metrics/reconstructions.png")


def main() -> None:
    """Train the VQ-GAN."""
    settings = config.read()
    device = runtime.set_up(settings.threads)
    pixels = images.read_split(SPLIT, "train").images
    steps, curve, start = settings.vqgan.steps, [], time.perf_counter()
    trained = training.train(settings.vqgan, pixels, settings.seed, device)
    progress = runtime.progress(trained, "train_vqgan", " images", steps, settings.vqgan.batch)
    for model, terms in progress:  # noqa: B007 (the last model is the trained one)
        curve.append(terms)
        if len(curve) % 100 == 0:  # off the device, where each would hold a block of its own
            curve[-100:] = [{name: float(term) for name, term in of.items()} for of in curve[-100:]]
    seconds = time.perf_counter() - start
    model.eval()
    vqgan.save(MODEL, model)
    files.write_curve(CURVE, curve)

    shown = next(images.read_shards(SPLIT, "val")).images
    shown = shown[runtime.evenly(len(shown), 16)]
    with torch.inference_mode():
        reconstructed = images.to_uint8(model(images.to_float(shown).to(device))[0])
    images.write_grid(PICTURE, np.concatenate([shown, reconstructed]), len(shown))
    print(
        f"train_vqgan: {steps:,} steps in {seconds:.0f} s,"
        f" {vqgan.count_parameters(model)['all']:,} parameters -> {MODEL}, {PICTURE}"
    )


if __name__ == "__main__":
    runtime.run(main, shared=True)
