"""Train the first stage, a VQ-GAN (paper, section 3).

Reads data/split. Writes the model to data/vqgan, the loss curve to metrics/loss/vqgan.csv, and
metrics/reconstructions.png: val images above their reconstructions.

    dvc repro train_vqgan
    python stages/train_vqgan.py
    torchrun --nproc-per-node 2 stages/train_vqgan.py
"""

from pathlib import Path

from rissole.dataset import images
from rissole.first_stage import losses, training, vqgan
from rissole.ground import config, identity, runtime
from rissole.ground.checkpoints import Checkpoints
from rissole.ground.course import Course

import numpy as np
import torch

SPLIT, MODEL = Path("data/split"), Path("data/vqgan/vqgan.safetensors")
CURVE, PICTURE = Path("metrics/loss/vqgan.csv"), Path("metrics/reconstructions.png")


def main() -> None:
    """Train the VQ-GAN."""
    settings = config.read().fitted(images.extent(SPLIT))
    device = runtime.set_up(settings.threads)
    pixels = images.read_split(SPLIT, "train").images
    learner = training.Learner(settings.vqgan, settings.seed, device)
    made_of = identity.of(
        Path(__file__),
        *images.shards(SPLIT, "train"),
        *losses.given_weights(settings.vqgan),
        vqgan=settings.vqgan.model_dump(),
        seed=settings.seed,
        machine=runtime.machine(device),
    )
    states, steps = Checkpoints("train_vqgan", made_of, settings.checkpoint), settings.vqgan.steps
    mend = f"vqgan.learning_rate is {settings.vqgan.learning_rate}: lower it"
    course = Course(learner, states, training.TERMS, steps, CURVE, mend)
    trained = training.train(learner, settings.vqgan, pixels, settings.seed, device)
    for _ in runtime.progress(
        course.follow(trained), "train_vqgan", " images", steps, settings.vqgan.batch, learner.step
    ):
        pass
    seconds, model = course.seconds(), learner.model.eval()
    vqgan.save(MODEL, model)

    shown = next(images.read_shards(SPLIT, "val")).images
    shown = shown[runtime.evenly(len(shown), 16)]
    with torch.inference_mode():
        reconstructed = images.to_uint8(model(images.to_float(shown, device))[0])
    images.write_grid(PICTURE, np.concatenate([shown, reconstructed]), len(shown))
    course.end()
    print(
        f"train_vqgan: {steps:,} steps in {seconds:.0f} s,"
        f" {vqgan.count_parameters(model)['all']:,} parameters -> {MODEL}, {PICTURE}"
    )


if __name__ == "__main__":
    runtime.run(main, shared=True)
