"""Gather what the report shows of one row: its first samples, their origins, their denoising.

Reads samples, audit, neighbour table, denoiser, latents and VQ-GAN. Draws the first batch again,
and writes its first images with some steps of their denoising, what each was told and what it is
nearest to, to data/shown/<row>.parquet.

    dvc repro show_samples@rissole
    python stages/show_samples.py rissole
"""

from pathlib import Path

from rissole.dataset import images
from rissole.drawing import drawing
from rissole.ground import command, config, runtime
from rissole.ground.errors import InputError
from rissole.report import denoising, shown


def main(row: str) -> None:
    """Gather what is shown of one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read().fitted(images.extent(Path("data/split")))
    of, device = settings.row(row), runtime.set_up(settings.threads)
    drawer = drawing.read(of, settings.row_sample(row), device)
    count = min(shown.IMAGES, len(drawer.batches()[0]))
    samples = shown.collect(row, of.context, count)
    stored = Path(f"data/samples/{row}/samples.parquet")
    if samples[0]["checkpoint"] != drawer.checkpoint:
        again = command.address("sample_images", row)
        raise InputError(f"{stored}: drawn with other weights; run `dvc repro {again}`")

    pictures = images.read_pictures(stored)[:count]
    steps, moments = denoising.watch(drawer, count, shown.MOMENTS)
    equal = (moments[:, -1] == pictures).all((1, 2, 3)).sum()
    moments[:, -1] = pictures
    target = Path(f"data/shown/{row}.parquet")
    shown.write(
        target,
        shown.Shown(
            drawn_in=drawer.network.row.blocks,
            steps=steps,
            moments=moments,
            samples=samples,
        ),
    )
    size = target.stat().st_size
    print(
        f"show_samples {row}: {count} images in {len(steps)} moments each,"
        f" {equal} of them equal bit by bit when drawn again"
        f" -> {target} ({size / 1e6:.1f} MB)"
    )


if __name__ == "__main__":
    runtime.run(main)
