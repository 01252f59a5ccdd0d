"""Features on disk, with a key of what they were made of: taken once, and never mixed up."""

import json
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files, fingerprint
from rissole.harness.errors import InputError
from rissole.judging.judges import Judge
from rissole.judging.scores import Features

import numpy as np
import pyarrow as pa


def write(
    path: Path,
    pictures: np.ndarray,
    look: dict[str, Judge],
    latents: str,
    columns: dict[str, pa.Array] | None = None,
) -> dict[str, np.ndarray]:
    """Show pictures to the judges and write what they see, with `columns` beside it.

    Args:
        path: of the Parquet file.
        pictures: uint8 (n, h, w, 3).
        look: judges by name.
        latents: identity of those of the project, which the pictures belong to.
        columns: n values each.

    Returns:
        Features float32 (n, d) by judge.
    """
    seen = {name: judge(pictures) for name, judge in look.items()}
    about = {
        "judges": json.dumps({name: judge.key for name, judge in look.items()}),
        "latents": latents,
    }
    table = (columns or {}) | {name: files.lists_column(x) for name, x in seen.items()}
    files.write_table(path, pa.table(table, metadata=about))
    return seen


@dataclass(frozen=True)
class Seen:
    """Features of one set of images.

    Attributes:
        by_judge: float32 (n, d) by name.
        judges: the key of each.
        latents: identity of those that the pictures belong to.
    """

    by_judge: dict[str, np.ndarray]
    judges: dict[str, str]
    latents: str


def read(path: Path) -> Seen:
    """Read what `write` wrote."""
    table = files.read_table(path)
    judges = json.loads(table.schema.metadata[b"judges"])
    by_judge = {name: files.lists_array(table[name]) for name in judges}
    return Seen(by_judge, judges, table.schema.metadata[b"latents"].decode())


def read_reference(folder: Path, judges: dict[str, str], latents: str) -> dict[str, Features]:
    """The features of true images by judge, for comparison with those that `judges` made.

    Args:
        folder: of the reference.
        judges: the key of each.
        latents: identity of those that both belong to.

    Raises:
        InputError: they were made with other weights, another resize or another version, or of
            images that belong to other latents.
    """
    seen = {name: read(folder / f"{name}.parquet") for name in ("train", "val", "reconstructed")}
    for name, of in seen.items():
        other = "features of images that belong to other latents than the drawn ones"
        fingerprint.check(folder / f"{name}.parquet", of.latents, latents, other)
        if of.judges != judges:
            raise InputError(
                f"{folder}/{name}.parquet: its features were made by {of.judges}, those of the"
                f" drawn images by {judges}; run `dvc repro` to take all anew"
            )
    apart = files.read_table(folder / "val.parquet", ["apart"])["apart"].to_numpy()
    return {
        judge: Features(**{name: of.by_judge[judge] for name, of in seen.items()}, apart=apart)
        for judge in judges
    }
