"""Train the denoiser of one variant (paper, sections 4.1.3 and 4.2).

Reads the latents and, for variants that retrieve, the neighbour tables. Writes the averaged weights
with the lowest validation loss, and the last ones, to data/ldm/<variant>; the loss curve to
metrics/loss/<variant>.csv; parameters, GFLOP and time to metrics/ldm/<variant>.json.

    dvc repro train_ldm@rissole
    python stages/train_ldm.py rissole
    torchrun --nproc-per-node 2 stages/train_ldm.py rissole
"""

from pathlib import Path

from rissole.dataset import images
from rissole.denoiser import conditioning, denoiser, training
from rissole.ground import config, files, identity, processes, runtime, schema
from rissole.ground.checkpoints import Checkpoints
from rissole.ground.course import Course
from rissole.ground.errors import InputError
from rissole.latent import latents

import torch
from torch.utils.flop_counter import FlopCounterMode

SPLIT, LATENTS = Path("data/split"), Path("data/latents")


def main(name: str) -> None:
    """Train one variant.

    Args:
        name: a variant; of the ablations with `ablations/` before it.
    """
    settings = config.read().fitted(images.extent(SPLIT))
    variant, ldm = settings.variant(name), settings.variant_ldm(name)
    device = runtime.set_up(settings.threads)
    encoded = latents.read(LATENTS, "train")
    database = conditioning.database(variant, variant.context, encoded).to(device)
    near = read_neighbours(variant, "train", encoded, encoded)
    train = training.Images(database.codes, near).to(device)
    val = latents.read(LATENTS, "val")
    near = read_neighbours(variant, "val", val, encoded)
    val = training.Images(conditioning.codes(variant, "val", val), near).to(device)
    k = 0 if train.neighbours is None else train.neighbours.shape[1]
    told = conditioning.Conditioning(variant, database, ldm.normalise)

    torch.manual_seed(runtime.seeded(variant.seed))
    network = denoiser.build(variant, ldm, told.shape[0], k, told.embedded)
    learner = training.Learner(network.to(device))

    tables = sorted(Path(f"data/{variant.context}").glob("*.parquet")) if k else []
    made_of = identity.of(
        Path(__file__),
        LATENTS / "manifest.json",
        *tables,
        variant=variant.model_dump(),
        ldm=ldm.model_dump(),
        machine=runtime.machine(device),
    )
    states = Checkpoints(f"train_ldm/{name}", made_of, settings.checkpoint)
    mend = f"ldm.learning_rate is {ldm.learning_rate}: lower it, or set ldm.clip"
    curves = files.measured("loss", name, "csv")
    course = Course(learner, states, training.TERMS, ldm.steps, curves, mend)
    steps = training.train(learner, told, ldm, variant.seed, train, val)
    for _ in runtime.progress(
        course.follow(steps), f"train_ldm {name}", " images", ldm.steps, ldm.batch, learner.step
    ):
        pass
    seconds = course.seconds()
    folder = Path(f"data/ldm/{name}")
    about = {"latents": encoded.identity}
    denoiser.save(folder / "last.safetensors", learner.averaged, step=ldm.steps, **about)
    learner.averages.copy_(learner.best)
    denoiser.save(folder / "best.safetensors", learner.averaged, step=learner.best_step, **about)

    live = learner.descent.live()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), processes.alone():
        first = torch.tensor([0], device=device)
        training.block_loss(learner.averaged, told, ldm, train, first, told.grid)
    files.write_json(
        files.measured("ldm", name),
        {
            "parameters_live": live,
            "gflop_per_image_step": round(counter.get_total_flops() / 1e9, 4),
            "train_seconds": round(seconds, 1),
            "train_images_per_second": round(ldm.steps * ldm.batch / seconds, 1),
            "train_peak_mb": runtime.peak_memory(device),
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
    variant: schema.Variant, split: str, of: latents.Latents, train: latents.Latents
) -> torch.Tensor | None:
    """The rows of the neighbours of a split's images, (n, k), where the variant retrieves."""
    if variant.neighbours == "none":
        return None
    path = Path(f"data/{variant.context}/{split}.parquet")
    ids, neighbours = latents.read_neighbours(path, train)
    if len(ids) != len(of):
        raise InputError(
            f"{path}: has the neighbours of {len(ids):,} images, not of the {len(of):,} that are"
            " encoded; run `dvc repro`"
        )
    return neighbours[of.rows(ids).argsort()]


if __name__ == "__main__":
    runtime.run(main, shared=True)
