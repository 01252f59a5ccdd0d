"""Draw images with the denoiser of one row (paper, section 4.3).

Queries are train rows, their own row never among their neighbours (unless the row's retrieval says
so). Reads denoiser, latents, neighbour table and VQ-GAN. Writes the images, lossless, with what
each was made from to data/samples/<row>/samples.parquet, and a grid to metrics/grids/<row>.png.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rissole import config, denoiser, files, images, latents, runtime, sampling, schema, vqgan
from rissole.conditioning import Conditioning, read_neighbours
from rissole.errors import InputError


def main(row: str) -> None:
    """Sample one row."""
    settings = config.read()
    sample, device = settings.sample, runtime.set_up(settings.threads)
    database = latents.read(Path("data/latents"), "train").to(device)
    weights = Path(f"data/ldm/{row}/best.safetensors")
    network = denoiser.load(weights).to(device)
    first_stage = vqgan.load(Path("data/vqgan/vqgan.safetensors")).to(device)
    queries, neighbours = read_queries(network.row, sample.images, database)

    conditioning = Conditioning(network.row, database, network.ldm.normalise)
    limit = conditioning.table.abs().max().item()
    scheduler = sampling.scheduler(network.ldm, sample, limit)
    drawn, codes = [], []
    starts = range(0, sample.images, sample.batch)
    for start in runtime.progress(starts, f"sample_images {row}", " images", scale=sample.batch):
        batch = range(start, min(start + sample.batch, sample.images))
        told = None if neighbours is None else neighbours[start : batch.stop].to(device)
        z = sampling.sample_latents(network, conditioning, scheduler, told, batch, network.row.seed)
        with torch.inference_mode():
            snapped = first_stage.snap(conditioning.raw(z))
            pixels = first_stage.decode(database.codebook[snapped].movedim(-1, 1))
        codes.append(snapped.cpu().numpy().astype(np.uint16))
        drawn.append(images.to_uint8(pixels))

    n, drawn = sample.images, np.concatenate(drawn)
    provenance = {
        "image": files.bytes_column(drawn),
        "codes": files.bytes_column(np.concatenate(codes)),
        "number": pa.array(range(n), pa.int64()),
        "query": pa.nulls(n, pa.int64()) if queries is None else pa.array(queries[:n]),
        "neighbours": pa.nulls(n, pa.list_(pa.int64()))
        if neighbours is None
        else files.lists_column(database.ids[neighbours[:n].numpy()]),
        "seed": pa.array([network.row.seed] * n, pa.int64()),
        "checkpoint": pa.array([files.digest(weights)] * n),
        "sampler": pa.array([sample.sampler] * n),
        "steps": pa.array([sample.steps] * n, pa.int64()),
    }
    folder, grid = Path(f"data/samples/{row}"), Path(f"metrics/grids/{row}.png")
    about = {"size": str(drawn.shape[1]), "row": row}
    files.write_table(folder / "samples.parquet", pa.table(provenance, metadata=about))
    images.write_grid(grid, drawn[:32], columns=8)
    print(f"sample_images {row}: {n:,} images -> {folder}, the first {min(n, 32)} -> {grid}")


def read_queries(variant: schema.Variant, images: int, database: latents.Latents):
    """Ids of the query images and rows of their neighbours, or None twice without retrieval."""
    if variant.neighbours == "none":
        return None, None
    path = Path(f"data/{variant.context}/queries.parquet")
    queries, neighbours = read_neighbours(path, database)
    if len(queries) < images:
        raise InputError(
            f"params.yaml: sample.images is {images}: {path} has {len(queries)} queries; draw"
            " fewer, or raise `queries` where there are more train images"
        )
    return queries, neighbours


if __name__ == "__main__":
    runtime.run(main)
