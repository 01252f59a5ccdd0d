"""Draw the images of one row with the denoiser of its variant (paper, section 4.3).

Queries are train rows, their own row never among their neighbours (unless the row's retrieval says
so). Reads denoiser, latents, neighbour table and VQ-GAN. Writes the images, lossless, with what
each was made from to data/samples/<row>/samples.parquet, a grid to metrics/grids/<row>.png, and
what drawing cost, and how far images move when their neighbours do, to
metrics/sampling/<row>.json; and how the first of them come out of noise, for
the report, to data/samples/<row>/moments.parquet. Several processes draw a batch each in turn.

    dvc repro sample_images@rissole
    python stages/sample_images.py rissole
    torchrun --nproc-per-node 2 stages/sample_images.py rissole
"""

import time
from collections.abc import Callable
from pathlib import Path

from rissole.core import config, files, numerics, processes
from rissole.dataset import images
from rissole.drawing import denoising, drawing, sensitivity
from rissole.drawing.settings import find_row, row_sample
from rissole.harness.progress import progress
from rissole.harness.run import run

import numpy as np
import pyarrow as pa

DATA, METRICS = Path("data"), Path("metrics")


def main(row: str) -> None:
    """Sample one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read().fitted(images.extent(DATA / "split"))
    sample, device = row_sample(settings, row), numerics.set_up(settings.threads)
    found = find_row(settings, row)
    of = drawing.read(found, sample, drawing.Paths.of(found, DATA), device)
    folder, grid = DATA / "samples" / row, files.measured(METRICS, "grids", row, "png")
    clock, shown, moments = time.perf_counter(), [], None
    with (
        files.growing_table(folder / "samples.parquet") as add,
        progress(f"sample_images {row}", " images", len(of.batches()), sample.batch) as advance,
    ):
        for batch, (pictures, codes, watched) in processes.in_turn(of.batches(), watching(of)):
            add(provenance(row, of, batch, pictures, codes))
            moments = moments or watched
            shown += list(pictures[: 32 - len(shown)])
            advance()
    seconds = time.perf_counter() - clock

    denoising.write(folder / "moments.parquet", *moments)
    images.write_grid(grid, np.stack(shown), columns=8)
    files.write_json(
        files.measured(METRICS, "sampling", row),
        {
            "sampling_images_per_second": round(sample.images / seconds, 1),
            "sampling_peak_mb": numerics.peak_memory(device),
            "calls": of.sampler.calls,
            **moved(of),
        },
    )
    print(
        f"sample_images {row}: {sample.images:,} images -> {folder},"
        f" the first {len(shown)} -> {grid}"
    )


def moved(of: drawing.Drawing) -> dict[str, dict]:
    """How far images move when their neighbours do, of a row that is told some."""
    if of.neighbours is None:
        return {}
    told = of.neighbours[: sensitivity.IMAGES].to(of.conditioning.device)
    return {"sensitivity": files.rounded(sensitivity.measure(of.network, of.told, told))}


def watching(of: drawing.Drawing) -> Callable[[range], tuple]:
    """What draws a batch, and gives of the first one how its images come about, else None."""

    def draw(batch: range) -> tuple:
        if batch.start:
            return *of.draw(batch), None
        pictures, codes, *moments = denoising.watch(of, batch)
        return pictures, codes, moments

    return draw


def provenance(
    row: str, of: drawing.Drawing, batch: range, pictures: np.ndarray, codes: np.ndarray
) -> pa.Table:
    """The images of a batch, each with what it was drawn from."""
    n, told = len(batch), slice(batch.start, batch.stop)
    columns = {
        "image": files.bytes_column(pictures),
        "codes": files.bytes_column(codes),
        "number": pa.array(batch, pa.int64()),
        "query": pa.nulls(n, pa.int64()) if of.queries is None else pa.array(of.queries[told]),
        "neighbours": pa.nulls(n, pa.list_(pa.int64()))
        if of.neighbours is None
        else files.lists_column(of.database.ids[of.neighbours[told].numpy()]),
        "seed": pa.array([of.seed] * n, pa.int64()),
        "checkpoint": pa.array([of.checkpoint] * n),
        "sampler": pa.array([of.sample.sampler] * n),
        "steps": pa.array([of.sample.steps] * n, pa.int64()),
    }
    about = {"size": str(pictures.shape[1]), "row": row, "latents": of.database.identity}
    return pa.table(columns, metadata=about)


if __name__ == "__main__":
    run(main, shared=True)
