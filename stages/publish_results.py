"""Keep the results of a run on other images than the default ones, to be committed.

Not a stage: `python stages/publish_results.py NAME` after `dvc repro`, and after the ablations that
are to be in it. Writes metrics/published/NAME/results.json, with every figure, the machine, the
seeds and the digests of what was measured, and tables.md beside it. No images.
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.results import publication


def main(name: str) -> None:
    """Publish what was measured."""
    folder = Path("metrics/published") / name
    content = publication.collect(config.read())
    files.write_json(folder / "results.json", content)
    page = publication.page(name, content, *publication.claimed())
    files.write_text(folder / "tables.md", page)
    left_out = ", ".join(content["left_out"]) or "none"
    print(
        f"publish_results: {len(content['rows'])} rows -> {folder};"
        f" tables left out, as a row of theirs was not measured on these images: {left_out}"
    )


if __name__ == "__main__":
    runtime.run(main)
