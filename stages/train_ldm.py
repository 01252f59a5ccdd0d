"""Train the denoiser of one variant (paper, sections 4.1.3 and 4.2).

Reads the latents and, for variants that retrieve, the neighbour tables. Writes the averaged weights
with the lowest validation loss, and the last ones, to data/ldm/<variant>; the loss curve to
metrics/loss/<variant>.csv; parameters, GFLOP and time to metrics/ldm/<variant>.json. While it
trains, each validation leaves a grid of samples in checkpoints/train_ldm/<variant>/samples.png.

    dvc repro train_ldm@rissole
    python stages/train_ldm.py rissole
    torchrun --nproc-per-node 2 stages/train_ldm.py rissole
"""

import sys
from pathlib import Path

from rissole import preview
from rissole.core import config, files, fingerprint, numerics, processes
from rissole.core.training_run import TrainingRun
from rissole.dataset import images
from rissole.denoiser import conditioning, denoiser, training
from rissole.denoiser.settings import Variant, find_variant, variant_ldm
from rissole.harness.checkpoints import Checkpoints, folder
from rissole.harness.errors import InputError
from rissole.harness.progress import progress
from rissole.harness.run import run
from rissole.latent import latents

import torch
from torch.utils.flop_counter import FlopCounterMode

SPLIT, LATENTS = Path("data/split"), Path("data/latents")
MODEL = Path("data/vqgan/vqgan.safetensors")
METRICS = Path("metrics")


def main(name: str) -> None:
    """Train one variant.

    Args:
        name: a variant; of the ablations with `ablations/` before it.
    """
    settings = config.read().fitted(images.extent(SPLIT))
    variant, ldm = find_variant(settings, name), variant_ldm(settings, name)
    table, device = Path("data", variant.context), numerics.set_up(settings.threads)
    encoded, held_out = (latents.read(LATENTS, split) for split in ("train", "val"))
    database = conditioning.database(variant, encoded, table, SPLIT).to(device)
    train, val = (
        training.Images(codes, read_neighbours(variant, table, split, of, encoded)).to(device)
        for split, of, codes in (
            ("train", encoded, database.codes),
            ("val", held_out, conditioning.codes(variant, "val", held_out, SPLIT)),
        )
    )
    k = 0 if train.neighbours is None else train.neighbours.shape[1]
    told = conditioning.Conditioning(variant, database, ldm.normalise)
    torch.manual_seed(numerics.seeded(variant.seed))
    network = denoiser.build(variant, ldm, told.shape[0], k, told.embedded)
    learner = training.Learner(network.to(device))
    made_of = fingerprint.of(
        LATENTS / "manifest.json",
        *(sorted(table.glob("*.parquet")) if k else []),
        variant=variant.model_dump(),
        ldm=ldm.model_dump(),
        machine=numerics.machine(device),
        version=training.VERSION,
    )
    checkpoints = Checkpoints(
        f"train_ldm/{name}", made_of, settings.checkpoint, processes.first(), processes.count() == 1
    )
    mend = f"ldm.learning_rate is {ldm.learning_rate}: lower it, or set ldm.clip"
    curves = files.measured(METRICS, "loss", name, "csv")
    drawn = folder(f"train_ldm/{name}") / "samples.png"
    print(f"train_ldm {name}: what it draws at each validation -> {drawn}", file=sys.stderr)
    course = TrainingRun(learner, checkpoints, training.TERMS, ldm.steps, curves, mend)
    with progress(f"train_ldm {name}", " images", ldm.steps, ldm.batch, learner.step) as advance:
        for terms in training.train(learner, told, ldm, variant.seed, train, val):
            course.note(terms)
            advance()
            if "validation" in terms and processes.first():
                preview.write(drawn, learner.averaged, told, encoded, val.neighbours, MODEL)
    seconds = course.seconds()
    weights = Path(f"data/ldm/{name}")
    about = {"latents": encoded.identity}
    denoiser.save(weights / "last.safetensors", learner.averaged, step=ldm.steps, **about)
    learner.averages.copy_(learner.best)
    denoiser.save(weights / "best.safetensors", learner.averaged, step=learner.best_step, **about)

    live = learner.descent.live()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), processes.alone():
        first = training.draw(told, ldm, torch.tensor([0], device=device), told.grid)
        training.block_loss(learner.averaged, told, ldm, train, first)
    files.write_json(
        files.measured(METRICS, "ldm", name),
        {
            "parameters_live": live,
            "gflop_per_image_step": round(counter.get_total_flops() / 1e9, 4),
            "train_seconds": round(seconds, 1),
            "train_images_per_second": round(ldm.steps * ldm.batch / seconds, 1),
            "train_peak_mb": numerics.peak_memory(device),
            "images_seen": ldm.steps * ldm.batch,
            "validation_loss": learner.best_validation,
        },
    )
    course.end()
    print(
        f"train_ldm {name}: {live / 1e6:.2f} M parameters, {ldm.steps * ldm.batch:,} images in"
        f" {seconds:.0f} s, validation loss {learner.best_validation:.4f} -> data/ldm/{name}"
    )


def read_neighbours(
    variant: Variant, table: Path, split: str, of: latents.Latents, train: latents.Latents
) -> torch.Tensor | None:
    """The rows of the neighbours of a split's images, (n, k), where the variant retrieves."""
    if variant.neighbours == "none":
        return None
    path = table / f"{split}.parquet"
    ids, neighbours = latents.read_neighbours(path, train)
    if len(ids) != len(of):
        raise InputError(
            f"{path}: has the neighbours of {len(ids):,} images, not of the {len(of):,} that are"
            " encoded; run `dvc repro`"
        )
    return neighbours[of.rows(ids).argsort()]


if __name__ == "__main__":
    run(main, shared=True)
