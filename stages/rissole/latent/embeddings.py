"""What an encoder says of each image as a whole: one vector of length 1.

A file holds the vectors of the images of the file of codes of the same name, in their order, and
names the encoder that made them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rissole.core import files, fingerprint, memory
from rissole.harness.errors import InputError
from rissole.latent.latents import Latents, check_table

import numpy as np
import pyarrow as pa
import torch


def write(path: Path, ids: np.ndarray, vectors: np.ndarray, **about: str) -> None:
    """Write ids int64 (n,) with vectors (n, d), kept as float16, and what they are `about`."""
    columns = {"id": pa.array(ids), "embedding": files.bytes_column(vectors.astype(np.float16))}
    about |= {"width": str(vectors.shape[1])}
    files.write_table(path, pa.table(columns).replace_schema_metadata(about))


def read_file(path: Path, ids: np.ndarray) -> np.ndarray:
    """The vectors float32 (n, d) of a file.

    Args:
        path: of it.
        ids: of the images that it should have, int64 (n,).

    Raises:
        InputError: it is missing, broken, or of other images.
    """
    table = files.read_table(path)
    if not np.array_equal(table["id"].to_numpy(), ids):
        raise InputError(f"{path}: of other images than those of data/latents; run `dvc repro`")
    return _vectors(table)


def read_parts(folder: Path, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids int64 (n,) and vectors float32 (n, d) of a split, a file at a time.

    Raises:
        InputError: files are missing, broken, or of two encoders.
    """
    known = encoder(folder)
    for path in _paths(folder, split):
        table = files.read_table(path)
        said = (table.schema.metadata or {}).get(b"encoder", b"").decode()
        fingerprint.check(path, said, known, "made by another encoder than the files beside it")
        yield table["id"].to_numpy(), _vectors(table)


def read(folder: Path, split: str, ids: np.ndarray) -> np.ndarray:
    """All vectors float32 (n, d) of a split, in memory where they fit (`memory.array`).

    Args:
        folder: of the files.
        split: train | val.
        ids: of the images of the split, int64 (n,), in their order.

    Raises:
        InputError: as `read_parts`, or they are of other images.
    """
    vectors, start = None, 0
    for here, part in read_parts(folder, split):
        if vectors is None:
            vectors = memory.array((len(ids), part.shape[1]), np.float32, f"{split} embeddings")
        stop = start + len(here)
        if not np.array_equal(here, ids[start:stop]):
            break
        vectors[start:stop], start = part, stop
    if start != len(ids):
        raise InputError(
            f"{folder}: the embeddings of {split} are of other images than those of data/latents;"
            " run `dvc repro`"
        )
    return vectors


def told(train: Latents, table: Path) -> Latents:
    """The train latents with the embeddings that a neighbour table, a folder, comes with.

    Raises:
        InputError: it comes with none, or with those of other images.
    """
    path = table / "embeddings.parquet"
    check_table(path, files.read_table(path, ["id"]), train)
    return replace(train, embeddings=torch.from_numpy(read_file(path, train.ids)))


def encoder(folder: Path) -> str:
    """What made the embeddings of a folder: weights and size."""
    about = files.read_table(_paths(folder, "train")[0], []).schema.metadata or {}
    return about.get(b"encoder", b"").decode()


def _paths(folder: Path, split: str) -> list[Path]:
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise InputError(f"{folder} holds no embeddings of {split} images; run `dvc repro`")
    return paths


def _vectors(table: pa.Table) -> np.ndarray:
    width = int(table.schema.metadata[b"width"])
    vectors = files.bytes_array(table["embedding"], np.float16, (width,)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # as float16 only nearly 1
