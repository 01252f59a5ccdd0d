"""Keep the results of a run, to be committed: of the main rows, or of the ablations.

Not a stage: `python stages/publish_results.py NAME` on the machine that ran `dvc repro`, or with
`--ablations` on that which ran `dvc repro stages/ablations/dvc.yaml`. Writes
metrics/published/NAME/results.json: every figure, the settings, the machine, the commit. No images.
Fails if a result is not current. `make_published_tables`, for which NAME is entered in
metrics/published/dvc.yaml, makes tables of it.

    python stages/publish_results.py my_faces
    python stages/publish_results.py ablations --ablations
"""

from pathlib import Path

from rissole.core import config
from rissole.dataset import images
from rissole.harness.run import run
from rissole.results import publication

METRICS = Path("metrics")


def main(name: str, ablations: bool = False) -> None:
    """Publish what was measured.

    Args:
        name: to publish it by.
        ablations: those, in the place of the main rows.
    """
    path = METRICS / "published" / name / "results.json"
    settings = config.read().fitted(images.extent(Path("data/split")))
    content = publication.collect(settings, METRICS, ablations)
    publication.write(path, content)
    print(f"publish_results: {len(content['rows'])} rows -> {path}")


if __name__ == "__main__":
    run(main)
