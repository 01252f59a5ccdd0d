"""Draw the images of one row with the denoiser of its variant (paper, section 4.3).

Queries are train rows, their own row never among their neighbours (unless the row's retrieval says
so). Reads denoiser, latents, neighbour table and VQ-GAN. Writes the images, lossless, with what
each was made from to data/samples/<row>/samples.parquet, a grid to metrics/grids/<row>.png, and
what drawing cost to metrics/sampling/<row>.json. Several processes draw a batch each in turn.

    dvc repro sample_images@rissole
    python stages/sample_images.py rissole
    torchrun --nproc-per-node 2 stages/sample_images.py rissole
"""

import time
from pathlib import Path

from rissole.dataset import images
from rissole.drawing import drawing
from rissole.ground import config, files, processes, runtime

import numpy as np
import pyarrow as pa


def main(row: str) -> None:
    """Sample one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read().fitted(images.extent(Path("data/split")))
    sample, device = settings.row_sample(row), runtime.set_up(settings.threads)
    of = drawing.read(settings.row(row), sample, device)
    folder, grid = Path(f"data/samples/{row}"), files.measured("grids", row, "png")
    clock, shown = time.perf_counter(), []
    drawn = processes.in_turn(of.batches(), of.draw)
    progress = runtime.progress(
        drawn, f"sample_images {row}", " images", len(of.batches()), sample.batch
    )
    with files.growing_table(folder / "samples.parquet") as add:
        for batch, (pictures, codes) in progress:
            add(provenance(row, of, batch, pictures, codes))
            shown += list(pictures[: 32 - len(shown)])
    seconds = time.perf_counter() - clock

    images.write_grid(grid, np.stack(shown), columns=8)
    files.write_json(
        files.measured("sampling", row),
        {
            "sampling_images_per_second": round(sample.images / seconds, 1),
            "sampling_peak_mb": runtime.peak_memory(device),
            "calls": of.sampler.calls,
        },
    )
    print(
        f"sample_images {row}: {sample.images:,} images -> {folder},"
        f" the first {len(shown)} -> {grid}"
    )


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
    runtime.run(main, shared=True)
