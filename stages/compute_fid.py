"""Score the samples of one row against true images (paper, section 5.1).

Reads the samples and the features of true images. Writes the distances under each judge to
metrics/fid/<row>.json; they are called `fid` only where Inception weights are given.
"""

from pathlib import Path

import numpy as np

from rissole import config, files, judges, runtime, scores

FEATURES = Path("data/features")


def main(row: str) -> None:
    """Score one row."""
    settings = config.read()
    device = runtime.set_up(settings.threads)
    samples = files.read_table(Path(f"data/samples/{row}/samples.parquet"), ["image"])
    size = int(samples.schema.metadata[b"size"])
    pictures = files.bytes_array(samples["image"], np.uint8, (size, size, 3))

    scored = {}
    for judge, see in judges.open(settings.judge, device).items():
        true = {
            name: files.lists_array(files.read_table(FEATURES / f"{name}.parquet", [judge])[judge])
            for name in scores.REFERENCES
        }
        scored |= scores.score(judge, see(pictures), true)
    path = Path(f"metrics/fid/{row}.json")
    files.write_json(path, scored | {"images": len(pictures)})
    first, distances = next(iter(scored.items()))
    print(f"compute_fid {row}: {first} {distances['val']:.1f} against val images -> {path}")


if __name__ == "__main__":
    runtime.run(main)
