"""Train the first stage, a VQ-GAN (paper, section 3).

Reads data/split. Writes the model to data/vqgan, the loss curve to metrics/loss/vqgan.csv, and
metrics/reconstructions.png: val images above their reconstructions.
"""

import csv
import time
from pathlib import Path

import numpy as np
import torch

from rissole import config, files, images, runtime, vqgan, vqgan_training

SPLIT, MODEL = Path("data/split"), Path("data/vqgan/vqgan.safetensors")
CURVE, PICTURE = Path("metrics/loss/vqgan.csv"), Path("metrics/reconstructions.png")
SHOWN, POINTS = 16, 200


def main() -> None:
    """Train the VQ-GAN."""
    settings = config.read()
    device = runtime.set_up(settings.threads)
    model, curve, seconds = train(settings, images.read_split(SPLIT, "train").images, device)
    vqgan.save(MODEL, model)
    write_curve(CURVE, curve)

    shown = next(images.read_shards(SPLIT, "val")).images[:SHOWN]
    with torch.inference_mode():
        reconstructed = images.to_uint8(model(images.to_float(shown).to(device))[0])
    images.write_grid(PICTURE, np.concatenate([shown, reconstructed]), len(shown))
    print(
        f"train_vqgan: {settings.vqgan.steps:,} steps in {seconds:.0f} s,"
        f" {vqgan.count_parameters(model)['all']:,} parameters -> {MODEL}, {PICTURE}"
    )


def train(settings: config.Settings, pixels: np.ndarray, device: torch.device):
    """The trained model, its loss curve of at most 200 points, and the seconds that it took."""
    steps, batch = settings.vqgan.steps, settings.vqgan.batch
    width, span, curve, start = -(-steps // POINTS), [], [], time.perf_counter()
    training = vqgan_training.train(settings.vqgan, pixels, settings.seed, device)
    training = runtime.progress(training, "train_vqgan", " images", steps, batch)
    for step, (model, terms) in enumerate(training, 1):  # noqa: B007 (the last model is returned)
        span.append(terms)
        if step % width == 0 or step == steps:
            curve.append({"step": step} | vqgan_training.means(span))
            span = []
    return model.eval(), curve, time.perf_counter() - start


def write_curve(path: Path, curve: list[dict[str, float]]) -> None:
    """The terms of the loss; those that start late are empty before."""
    with files.replacing(path) as scratch, scratch.open("w", newline="") as file:
        lines = csv.DictWriter(file, list(curve[-1]))
        lines.writeheader()
        lines.writerows(curve)


if __name__ == "__main__":
    runtime.run(main)
