"""Keep the results of a run on other images, or on another machine, to be committed.

Not a stage: `python stages/publish_results.py NAME` on the machine that ran `dvc repro`, and the
ablations that are to be in it. Writes metrics/published/NAME/results.json: every figure, the
settings, the machine, and the digests of what was measured. No images. Fails if a result is not
current. `make_published_tables`, for which NAME is entered in metrics/published/dvc.yaml, makes
tables of it.

    python stages/publish_results.py my_faces
"""

from pathlib import Path

from rissole.dataset import images
from rissole.ground import config, files, runtime
from rissole.results import publication


def main(name: str) -> None:
    """Publish what was measured.

    Args:
        name: to publish them by.
    """
    path = Path("metrics/published") / name / "results.json"
    settings = config.read().fitted(images.extent(Path("data/split")))
    content = publication.collect(settings)
    files.write_json(path, content)
    left_out = ", ".join(content["left_out"]) or "none"
    print(
        f"publish_results: {len(content['rows'])} rows -> {path}; tables left out, as a row of"
        f" theirs has no current result: {left_out}"
    )


if __name__ == "__main__":
    runtime.run(main)
