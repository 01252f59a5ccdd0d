"""What the report shows of one row: its first samples and what each leans on, as one file."""

from dataclasses import dataclass
from pathlib import Path

from rissole.ground import files

import numpy as np
import pyarrow as pa

IMAGES = 16  # of a row
MOMENTS = 8  # of its denoising
NEIGHBOURS = 20  # of an image


@dataclass(frozen=True, eq=False)
class Shown:
    """The first samples of a row.

    Attributes:
        drawn_in: blocks per side that the row is drawn in.
        steps: of the denoising after which they are shown, the last one at the end.
        moments: how they look then, uint8 (n, steps, h, w, 3); in the end they are the samples.
        samples: what is known of each, by name as `table` has it.
    """

    drawn_in: int
    steps: list[int]
    moments: np.ndarray
    samples: list[dict]

    @property
    def pictures(self) -> np.ndarray:
        """The samples, uint8 (n, h, w, 3)."""
        return self.moments[:, -1]

    @property
    def train_ids(self) -> set[int]:
        """Of all train images that are shown beside the samples."""
        ids = set()
        for of in self.samples:
            ids |= {of["nearest"], *of["nearest_by_block"], *(of["neighbours"] or [])}
            ids |= {of["query"]} - {None}
        return ids


def write(path: Path, shown: Shown) -> None:
    """Write what is shown of a row, lossless."""
    table = pa.Table.from_pylist(shown.samples, schema=SCHEMA)
    table = table.append_column("moments", files.bytes_column(shown.moments))
    about = {
        "size": str(shown.moments.shape[-2]),
        "drawn_in": str(shown.drawn_in),
        "steps": " ".join(map(str, shown.steps)),
    }
    files.write_table(path, table.replace_schema_metadata(about))


def read(path: Path) -> Shown:
    """What `write` wrote. Raises InputError where it is missing or broken."""
    table = files.read_table(path)
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    size = int(about["size"])
    steps = [int(step) for step in about["steps"].split()]
    return Shown(
        drawn_in=int(about["drawn_in"]),
        steps=steps,
        moments=files.bytes_array(table["moments"], np.uint8, (len(steps), size, size, 3)),
        samples=table.select(SCHEMA.names).to_pylist(),
    )


SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "seed": pa.int64(),
        "sampler": pa.string(),
        "checkpoint": pa.string(),
        "query": pa.int64(),
        "neighbours": pa.list_(pa.int64()),
        "similarities": pa.list_(pa.float32()),
        "retrieved": pa.int64(),  # neighbours, those that are not shown among them
        "copied": pa.bool_(),
        "vouched": pa.bool_(),
        "nearest": pa.int64(),
        "distance": pa.float64(),
        "nearest_by_block": pa.list_(pa.int64()),
        "distance_by_block": pa.list_(pa.float64()),
    }
)


def collect(row: str, context: str, images: int) -> list[dict]:
    """What samples, audit and neighbour table say of the first images of a row.

    Args:
        row: of the table.
        context: the folder of data/ with its neighbour table, or `latents`.
        images: how many.

    Raises:
        InputError: a file is missing or broken.
    """
    samples = files.read_table(
        Path(f"data/samples/{row}/samples.parquet"),
        ["number", "seed", "sampler", "checkpoint", "query", "neighbours"],
    ).slice(0, images)
    audited = files.read_table(Path(f"data/audit/{row}.parquet")).slice(0, images)
    pairs = zip(samples.to_pylist(), audited.to_pylist(), strict=True)
    collected = [sample | audit for sample, audit in pairs]
    alike = [None] * len(collected)
    if collected[0]["query"] is not None:
        queries = files.read_table(Path(f"data/{context}/queries.parquet"), ["similarities"])
        alike = queries["similarities"].slice(0, images).to_pylist()
    for of, similarities in zip(collected, alike, strict=True):
        of["retrieved"] = len(of["neighbours"] or [])
        of["neighbours"] = of["neighbours"] and of["neighbours"][:NEIGHBOURS]
        of["similarities"] = similarities and similarities[:NEIGHBOURS]
    return collected
