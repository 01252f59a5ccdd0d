"""What the report shows of one row: its first samples, and what each leans on."""

from dataclasses import dataclass
from pathlib import Path

from rissole.core import files
from rissole.drawing import denoising

import numpy as np

NEIGHBOURS = 20  # of an image


@dataclass(frozen=True, eq=False)
class Shown:
    """The first samples of a row.

    Attributes:
        drawn_in: blocks per side that the row is drawn in.
        steps: of the denoising after which they are shown, the last one at the end.
        moments: how they look then, uint8 (n, steps, h, w, 3); in the end they are the samples.
        samples: what is known of each, by name: the columns of samples and audit, and
            `similarities` of the neighbours, of which `retrieved` says how many there are.
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


def read(samples: Path, audit: Path, table: Path, drawn_in: int) -> Shown:
    """What samples, audit and neighbour table say of the first images of a row.

    Args:
        samples: folder of the row's samples.
        audit: file of what was found of each.
        table: folder of the neighbour table; not read where the row retrieves nothing.
        drawn_in: blocks per side that the row is drawn in.

    Raises:
        InputError: a file is missing or broken.
    """
    steps, moments = denoising.read(samples / "moments.parquet")
    count = len(moments)
    columns = ["number", "seed", "sampler", "checkpoint", "query", "neighbours"]
    drawn = files.read_table(samples / "samples.parquet", columns).slice(0, count)
    audited = files.read_table(audit).slice(0, count)
    collected = [a | b for a, b in zip(drawn.to_pylist(), audited.to_pylist(), strict=True)]
    alike = [None] * count
    if collected[0]["query"] is not None:
        queries = files.read_table(table / "queries.parquet", ["similarities"])
        alike = queries["similarities"].slice(0, count).to_pylist()
    for of, similarities in zip(collected, alike, strict=True):
        of["retrieved"] = len(of["neighbours"] or [])
        of["neighbours"] = of["neighbours"] and of["neighbours"][:NEIGHBOURS]
        of["similarities"] = similarities and similarities[:NEIGHBOURS]
    return Shown(drawn_in, steps, moments, collected)
