"""Draw the images of one row with the denoiser of its variant (paper, section 4.3).

Queries are train rows, their own row never among their neighbours (unless the row's retrieval says
so). Reads denoiser, latents, neighbour table and VQ-GAN. Writes the images, lossless, with what
each was made from to data/samples/<row>/samples.parquet, a grid to metrics/grids/<row>.png, and
what drawing cost to metrics/sampling/<row>.json.
"""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from rissole.dataset import images
from rissole.drawing import drawing
from rissole.ground import config, files, runtime


def main(row: str) -> None:
    """Sample one row."""
    settings = config.read()
    sample, device = settings.row_sample(row), runtime.set_up(settings.threads)
    of = drawing.read(settings.row(row), sample, device)
    clock, batches = time.perf_counter(), of.batches()
    progress = runtime.progress(batches, f"sample_images {row}", " images", scale=sample.batch)
    drawn, codes = (np.concatenate(parts) for parts in zip(*map(of.draw, progress), strict=True))
    seconds = time.perf_counter() - clock

    n = len(drawn)
    provenance = {
        "image": files.bytes_column(drawn),
        "codes": files.bytes_column(codes),
        "number": pa.array(range(n), pa.int64()),
        "query": pa.nulls(n, pa.int64()) if of.queries is None else pa.array(of.queries),
        "neighbours": pa.nulls(n, pa.list_(pa.int64()))
        if of.neighbours is None
        else files.lists_column(of.database.ids[of.neighbours.numpy()]),
        "seed": pa.array([of.seed] * n, pa.int64()),
        "checkpoint": pa.array([of.checkpoint] * n),
        "sampler": pa.array([sample.sampler] * n),
        "steps": pa.array([sample.steps] * n, pa.int64()),
    }
    folder, grid = Path(f"data/samples/{row}"), files.measured("grids", row, "png")
    about = {"size": str(drawn.shape[1]), "row": row}
    files.write_table(folder / "samples.parquet", pa.table(provenance, metadata=about))
    images.write_grid(grid, drawn[:32], columns=8)
    files.write_json(
        files.measured("sampling", row),
        {
            "sampling_images_per_second": round(n / seconds, 1),
            "sampling_peak_mb": runtime.peak_memory(device),
            "steps": sample.steps,
        },
    )
    print(f"sample_images {row}: {n:,} images -> {folder}, the first {min(n, 32)} -> {grid}")


if __name__ == "__main__":
    runtime.run(main)
