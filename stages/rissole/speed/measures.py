"""What is measured, a few figures each; every ratio is taken within one run."""

import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from rissole.denoiser import training as ours
from rissole.denoiser.denoiser import Denoiser
from rissole.drawing import samplers
from rissole.drawing import sampling as drawing
from rissole.ground import runtime
from rissole.ground.config import Settings
from rissole.retrieval import search
from rissole.speed import reference
from rissole.speed.timing import interleaved, peak
from rissole.speed.worlds import World, rows

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

PROBES = 1000  # queries
DRAWN, STEPS = 16, 5  # images, and steps of the sampler, that sampling is timed on


def training(world: World, repeats: int) -> dict[str, float]:
    """`train_speedup`: a step of the reference over one of ours, forward and backward."""
    seconds = interleaved(
        {
            "ours": lambda: _learn(world.denoiser, our_loss(world)),
            "reference": lambda: _learn(world.denoiser, reference_loss(world)),
        },
        repeats,
    )
    return {
        "train_speedup": seconds["reference"] / seconds["ours"],
        "train_images_per_second": world.ldm.batch / seconds["ours"],
    }


def our_loss(world: World) -> Tensor:
    """Of a fixed batch, noise and timesteps."""
    torch.manual_seed(0)
    return ours.block_loss(world.denoiser, world.conditioning, world.ldm, world.images, rows(world))


def reference_loss(world: World) -> Tensor:
    """Of the same, by the algorithm as it is written."""
    torch.manual_seed(0)
    return reference.block_loss(
        world.denoiser,
        world.conditioning,
        world.ldm,
        world.first_stage,
        world.database,
        rows(world),
    )


def sampling(world: World, repeats: int) -> dict[str, float]:
    """`sample_speedup_equal_steps`: the reference's latents over ours, at as many steps."""
    world.denoiser.eval()
    seconds = interleaved(
        {"ours": lambda: our_latents(world), "reference": lambda: reference_latents(world)}, repeats
    )
    world.denoiser.train()
    return {
        "sample_speedup_equal_steps": seconds["reference"] / seconds["ours"],
        "sampled_image_steps_per_second": DRAWN * STEPS / seconds["ours"],
    }


def our_latents(world: World) -> Tensor:
    """Latents drawn in a few steps, all blocks together."""
    told = world.images.neighbours[:DRAWN]
    return drawing.sample_latents(
        world.denoiser, world.conditioning, _sampler(world), told, range(DRAWN), 0
    )


def reference_latents(world: World) -> Tensor:
    """The same, block after block."""
    told = world.images.neighbours[:DRAWN]
    return reference.sample_latents(
        world.denoiser,
        world.conditioning,
        _sampler(world),
        world.database,
        told,
        range(DRAWN),
        0,
    )


def neighbours_cost(world: World, repeats: int) -> dict[str, float]:
    """`train_step_k20_over_k4`: a training step with 20 neighbours over one with 4."""
    steps = {}
    for k in (4, 20):
        told = world.images.neighbours[:, :k]
        denoiser = Denoiser(world.denoiser.row, world.ldm, world.denoiser.sizes["channels"], k)
        denoiser.to(told.device)

        def step(denoiser=denoiser, told=told) -> None:
            images = ours.Images(world.images.codes, told)
            _learn(
                denoiser,
                ours.block_loss(denoiser, world.conditioning, world.ldm, images, rows(world)),
            )

        steps[k] = step
    seconds = interleaved(steps, repeats)
    return {"train_step_k20_over_k4": seconds[20] / seconds[4]}


def network(world: World, repeats: int) -> dict[str, float]:
    """How much of a training step is the U-Net, and how near that is to the machine's best.

    `train_fraction_of_peak` is the achieved FLOP per second of a whole step over those of the best
    product of matrices of the type that it computes in.
    """
    unet, ldm = world.denoiser.unet, world.ldm
    device = world.images.codes.device
    side = world.images.codes.shape[-1] // world.conditioning.row.blocks
    n = ldm.batch * world.conditioning.blocks
    u = torch.randn(n, ldm.widths[0] // 2, side, side, device=device)
    embedded = [torch.randn(n, ldm.embedding, device=device)]

    def inner() -> None:
        with runtime.autocast(device):
            predicted = unet(u, embedded)
        _learn(unet, predicted.float().square().mean())

    def step() -> None:
        _learn(world.denoiser, our_loss(world))

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = interleaved({"step": step, "unet": inner}, repeats)
    with runtime.autocast(device):
        dtype = (torch.ones(1, 1, device=device) @ torch.ones(1, 1, device=device)).dtype
    best = peak(dtype, device)
    rate = counter.get_total_flops() / seconds["step"]
    return {
        "train_share_outside_unet": 1 - seconds["unet"] / seconds["step"],
        "train_gflop_per_second": rate / 1e9,
        "peak_gflop_per_second": best / 1e9,
        "peak_type": str(dtype).removeprefix("torch."),
        "train_fraction_of_peak": rate / best,
    }


def database(world: World) -> dict[str, float]:
    """Bytes that an image takes in the database, as its stored codes and as float latents."""
    codes, z = world.images.codes, world.database.z
    coded = codes[0].numel() * np.dtype(np.uint16).itemsize  # of data/latents
    floats = z[0].numel() * z.element_size()
    return {"database_bytes_per_image": coded, "database_floats_over_codes": floats / coded}


def encoding(world: World, repeats: int) -> dict[str, float]:
    """Images per second through the encoder."""
    part = world.database.pictures[:64]
    with torch.inference_mode():
        seconds = interleaved({"encode": lambda: world.first_stage.encode(part)}, repeats)
    return {"encode_images_per_second": len(part) / seconds["encode"]}


def _learn(module: torch.nn.Module, loss: Tensor) -> None:
    module.zero_grad()
    loss.backward()


def _sampler(world: World) -> samplers.Sampler:
    sample = world.sample.model_copy(update={"steps": STEPS})
    return samplers.build(world.ldm, sample, world.conditioning.limit)


def retrieval(settings: Settings, sizes: list[int]) -> dict[str, dict]:
    """Recall at 20 and queries per second of each kind of index, over made-up clustered rows."""
    found = {}
    for rows_, kind in product(sizes, ("exact", "hashed", "tree")):
        vectors = clustered(rows_ + PROBES)
        database, queries = vectors[:rows_], vectors[rows_:]
        chosen = settings.index.model_copy(update={"kind": kind})
        with TemporaryDirectory() as folder:
            search.build(database, chosen, Path(folder) / "latent")
            index = search.open(Path(folder) / "latent", database)
            index.search(queries[:20], 20)
            started = time.perf_counter()
            near, _ = index.search(queries, 20)
            seconds = time.perf_counter() - started
        exact, _ = search.Exact(database).search(queries, 20)
        hits = (near[:, :, None] == exact[:, None]).any(2)
        found[f"{kind}_{rows_}"] = {
            "recall_at_20": float(hits.mean()),
            "queries_per_second": PROBES / seconds,
        }
    return found


def clustered(n: int, width: int = 192, clusters: int = 200) -> np.ndarray:
    """Rows of length 1 around common centres, float32 (n, width)."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(clusters, width))
    points = centres[draw.integers(clusters, size=n)] + 0.7 * draw.normal(size=(n, width))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
