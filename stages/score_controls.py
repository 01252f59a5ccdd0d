"""Score rows that nobody trained: true images, and cheats made of true images.

Reads the split, latents, VQ-GAN, the neighbours by which `rissole` draws, and the reference. Writes
every score and audit of each control to metrics/controls.json, as a row's, and a picture of them to
metrics/grids/controls.png. Fails when a measure misses the cheat that it is there for, or accuses
true images: then no row's figures mean anything.

Val images are needed on both sides here: one half is shown, the other stands for the truth.

    dvc repro score_controls
    python stages/score_controls.py
"""

from dataclasses import replace
from pathlib import Path

from rissole.auditing import audit, coherence, controls
from rissole.auditing.copies import Drawn
from rissole.core import config, files, numerics
from rissole.dataset import images
from rissole.drawing.settings import Sample
from rissole.first_stage import vqgan
from rissole.harness.errors import InputError
from rissole.harness.run import run
from rissole.judging import features, judges, scores
from rissole.judging.settings import JudgeSettings
from rissole.latent import latents
from rissole.latent.latents import read_neighbours
from rissole.results.objections import objections

import numpy as np
import torch
import torch.nn.functional as F

LATENTS, REFERENCE = Path("data/latents"), Path("data/reference")
NEIGHBOURS = Path("data/neighbours/main")


def main() -> None:
    """Score all controls."""
    settings = config.read().fitted(images.extent(Path("data/split")))
    device = numerics.set_up(settings.threads)
    look = judges.open(settings.section(JudgeSettings), device)
    train, val = (latents.read(LATENTS, split) for split in ("train", "val"))
    keys = {name: judge.key for name, judge in look.items()}
    true = features.read_reference(REFERENCE, keys, train.identity)
    weights = Path("data/vqgan/vqgan.safetensors")
    first_stage = vqgan.load(weights, train.first_stage).to(device)
    detectors = coherence.load(REFERENCE / "collages.safetensors", train.identity)
    reconstructions = images.read_pictures(REFERENCE / "reconstructions.parquet")
    ids = files.read_table(REFERENCE / "val.parquet", ["id"])["id"].to_numpy()
    places = np.arange(len(ids))
    shown, kept = places[1::2][: settings.section(Sample).images], places[::2]
    real = audit.real_images(
        train,
        val,
        val.rows(ids[kept]),
        NEIGHBOURS,
        settings.blocks,
        settings.blocks,
    )
    true = {name: of.some(kept) for name, of in true.items()}
    judge = next(iter(look.values()))  # the first alone: objections ask no other

    table = train.table(normalise=True)
    queries, neighbours = read_neighbours(NEIGHBOURS / "queries.parquet", train)
    n = min(settings.section(Sample).images, len(queries))
    sources = controls.Sources(
        train=real.train.z,
        val=val.look_up(table)[val.rows(ids[shown])],
        query=torch.from_numpy(train.rows(queries[:n])),
        neighbours=neighbours[:n],
        blocks=settings.blocks,
        seed=settings.seed,
    )
    reference = files.read_json(Path("metrics/reference.json"))
    scored, raised, pictures = {}, {}, []
    for name, z in controls.latents(sources):
        raw = (z.movedim(1, -1) * train.std + train.mean).movedim(-1, 1)
        codes = torch.cat([first_stage.snap(part.to(device)).cpu() for part in raw.split(64)])
        drawn = Drawn(F.embedding(codes, table).movedim(-1, 1).contiguous(), codes.int())
        if name not in controls.UNTOLD:
            told = {"neighbours": sources.neighbours[: len(z)], "query": sources.query[: len(z)]}
            drawn = replace(drawn, **told)
        if name == "held_out":
            made = true_pictures(ids[shown])
        else:
            made = decode(first_stage, F.embedding(codes, train.codebook).movedim(-1, 1), device)
        numbers, traces = audit.trace(drawn, real)
        copied = traces.copied.numpy() if traces.vouched else None
        numbers["coherence"] = coherence.measure(
            drawn.z,
            made,
            real.val.z,
            reconstructions[kept],
            detectors,
            settings.blocks,
            settings.blocks,
        )
        numbers = files.rounded(numbers | {"images": len(made), "held_out": len(real.val)})
        fid = {"images": len(made)}
        fid |= scores.score(judge.name, judge(made), copied, true[judge.name])
        raised[name] = objections(numbers, fid, reference)
        scored[name] = {"audit": numbers, "fid": fid}
        pictures.append(made[:8])
        print(f"score_controls: {name}: {', '.join(raised[name]) or 'no objection'}", flush=True)

    files.write_json(Path("metrics/controls.json"), scored)
    images.write_grid(Path("metrics/grids/controls.png"), np.concatenate(pictures), columns=8)
    mistakes = controls.mistakes(raised)
    if mistakes and len(kept) < controls.ENOUGH:
        print(
            f"score_controls: {'; '.join(mistakes)}: expected of as few as {len(kept)} val images,"
            " but read no row's audit as proof"
        )
    elif mistakes:
        raise InputError(
            f"metrics/controls.json: {'; '.join(mistakes)}: no row's figures can be trusted on"
            " these images; give more of them (data.images and sample.images of the preset)"
        )


def true_pictures(ids: np.ndarray) -> np.ndarray:
    """Val images by id, uint8 (n, h, w, 3)."""
    split = images.read_split(Path("data/split"), "val")
    place = {number: row for row, number in enumerate(split.ids.tolist())}
    return split.images[[place[number] for number in ids.tolist()]]


@torch.inference_mode()
def decode(model: vqgan.VQGAN, z: torch.Tensor, device: torch.device) -> np.ndarray:
    """The pictures of quantised latents (n, c, h, w), uint8 (n, H, W, 3)."""
    parts = z.split(64)
    return np.concatenate([images.to_uint8(model.decode(part.to(device))) for part in parts])


if __name__ == "__main__":
    run(main)
