"""Write a row's model as a folder to take away, which draws without this project and without DVC.

Not a stage. The folder is in diffusers' format:
first stage, denoiser, scheduler, database of neighbours, the code that it takes, and README.md, a
model card that says how to use it, what it scored and what its audit found. The row must have been
drawn and scored.

    python stages/export_model.py rissole my_model
"""

from pathlib import Path

from rissole.core import config
from rissole.dataset import images
from rissole.export import bundle, card
from rissole.harness.run import run

DATA, METRICS = Path("data"), Path("metrics")


def main(row: str, folder: str) -> None:
    """Export one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
        folder: to write; there is none yet.
    """
    settings = config.read().fitted(images.extent(DATA / "split"))
    size = bundle.write(Path(folder), row, settings, DATA, METRICS)
    found = card.accusations(card.read_measured(METRICS, row).audit)
    print(
        f"export_model: {row} -> {folder} ({size / 1e6:.1f} MB); {Path(folder) / 'README.md'} says"
        f" how to draw with it, and `hf upload NAME {folder}` publishes it"
        f"{f'; its images are accused of copying: {found}' if found else ''}"
    )


if __name__ == "__main__":
    run(main)
