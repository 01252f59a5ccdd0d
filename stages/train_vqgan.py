"""Train the first stage, a VQ-GAN (paper, section 3).

Reads data/split. Writes the model to data/vqgan, the loss curve to metrics/loss/vqgan.csv, and
metrics/reconstructions.png: val images above their reconstructions.

    dvc repro train_vqgan
    python stages/train_vqgan.py
    torchrun --nproc-per-node 2 stages/train_vqgan.py
"""

from pathlib import Path

from rissole.core import config, fingerprint, numerics, processes
from rissole.core.training_run import TrainingRun
from rissole.dataset import images
from rissole.first_stage import losses, training, vqgan
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.checkpoints import Checkpoints
from rissole.harness.progress import progress
from rissole.harness.run import run

import numpy as np
import torch

SPLIT, MODEL = Path("data/split"), Path("data/vqgan/vqgan.safetensors")
CURVE, PICTURE = Path("metrics/loss/vqgan.csv"), Path("metrics/reconstructions.png")


def main() -> None:
    """Train the VQ-GAN."""
    settings = config.read().fitted(images.extent(SPLIT))
    of, device = settings.section(VQGANSettings), numerics.set_up(settings.threads)
    pixels = images.read_split(SPLIT, "train").images
    learner = training.Learner(of, settings.seed, device)
    made_of = fingerprint.of(
        *images.shards(SPLIT, "train"),
        *losses.given_weights(of),
        vqgan=of.model_dump(),
        seed=settings.seed,
        machine=numerics.machine(device),
        version=training.VERSION,
    )
    checkpoints = Checkpoints(
        "train_vqgan", made_of, settings.checkpoint, processes.first(), processes.count() == 1
    )
    mend = f"vqgan.learning_rate is {of.learning_rate}: lower it"
    course = TrainingRun(learner, checkpoints, training.TERMS, of.steps, CURVE, mend)
    with progress("train_vqgan", " images", of.steps, of.batch, learner.step) as advance:
        for terms in training.train(learner, of, pixels, settings.seed, device):
            course.note(terms)
            advance()
    seconds, model = course.seconds(), learner.model.eval()
    vqgan.save(MODEL, model)

    shown = next(images.read_shards(SPLIT, "val")).images
    shown = shown[numerics.evenly(len(shown), 16)]
    with torch.inference_mode():
        reconstructed = images.to_uint8(model(images.to_float(shown, device))[0])
    images.write_grid(PICTURE, np.concatenate([shown, reconstructed]), len(shown))
    course.end()
    print(
        f"train_vqgan: {of.steps:,} steps in {seconds:.0f} s,"
        f" {vqgan.count_parameters(model)['all']:,} parameters -> {MODEL}, {PICTURE}"
    )


if __name__ == "__main__":
    run(main, shared=True)
