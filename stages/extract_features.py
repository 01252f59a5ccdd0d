"""Show the samples of one row to the judges, once for all scores.

Reads the samples. Writes what each judge sees in them to data/features/<row>.parquet, with a key of
images, weights, resize and versions.

    dvc repro extract_features@rissole
    python stages/extract_features.py rissole
    torchrun --nproc-per-node 2 stages/extract_features.py rissole
"""

from pathlib import Path

from rissole.dataset import images
from rissole.ground import config, files, identity, runtime
from rissole.judging import features, judges


def main(row: str) -> None:
    """Extract the features of one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read()
    look = judges.open(settings.judge, runtime.set_up(settings.threads))
    samples = Path(f"data/samples/{row}/samples.parquet")
    path = Path(f"data/features/{row}.parquet")
    pictures = images.read_pictures(samples)
    about = files.read_table(samples, []).schema.metadata
    identity.check(samples, about[b"row"].decode(), row, "samples of another row")
    features.write(path, pictures, look, about[b"latents"].decode())
    print(
        f"extract_features {row}: {len(pictures):,} images, seen by {' and '.join(look)} -> {path}"
    )


if __name__ == "__main__":
    runtime.run(main, shared=True)
