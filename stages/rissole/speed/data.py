"""The database: how large, how fast it is encoded, how fast and how truly it is searched."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rissole.dataset import sources
from rissole.dataset.images import prepare_all
from rissole.ground.config import Settings
from rissole.retrieval import index
from rissole.speed import memory, searching
from rissole.speed.timing import interleaved, quiet
from rissole.speed.worlds import World

import numpy as np
import torch

PROBES = 1000  # queries
K = 20


def database(world: World) -> dict[str, float]:
    """Bytes that an image takes in the database, as its stored codes and as float latents."""
    codes, z = world.images.codes, world.database.z
    coded = codes[0].numel() * np.dtype(np.uint16).itemsize  # of data/latents
    floats = z[0].numel() * z.element_size()
    return {"database_bytes_per_image": coded, "database_floats_over_codes": floats / coded}


def splitting(images: int, size: int) -> dict[str, float]:
    """Images per second that are read, cut to size and numbered, once the workers have started."""
    with TemporaryDirectory() as folder:
        memory.draw(Path(folder) / "images", images)
        records = sources.records(sources.bare(Path(folder) / "images", size))
        prepared = prepare_all(records, size)
        for _ in range(16):
            next(prepared)
        clock = time.perf_counter()
        rest = sum(1 for _ in prepared)
        return {"split_images_per_second": rest / (time.perf_counter() - clock)}


def encoding(world: World, repeats: int) -> dict[str, float]:
    """Images per second through the encoder."""
    part = world.database.pictures[:64]
    with torch.inference_mode():
        seconds = interleaved({"encode": lambda: world.first_stage.encode(part)}, repeats)
    return {"encode_images_per_second": len(part) / seconds["encode"]}


def retrieval(settings: Settings, sizes: list[int]) -> dict[str, dict]:
    """What the kinds of index that need nothing more are worth, over made-up clustered rows."""
    found = {}
    for rows in sizes:
        vectors = np.concatenate(list(clustered(rows)))
        for kind in ("exact", "hashed", "tree"):
            found[f"{kind}_{rows}"] = searching.measure(vectors, probes(rows), settings.index, kind)
    return {"retrieval": found, "retrieval_width": WIDTH}


def self_join(settings: Settings, rows: int) -> dict[str, float]:
    """Seconds in which every row of a database finds its 20 nearest, index included."""
    vectors = np.concatenate(list(clustered(rows)))
    with TemporaryDirectory() as folder:
        folder, clock = Path(folder) / "latent", time.perf_counter()
        with quiet():
            index.build([vectors], vectors.shape, settings.index, folder, vectors[:20])
        searched = index.open(folder, vectors)
        for start in range(0, rows, 4096):
            searched.search(vectors[start : start + 4096], K + 1)
        return {f"self_join_seconds_{rows}": time.perf_counter() - clock}


WIDTH, CLUSTERS, BLOCK = 192, 200, 10_000


def clustered(rows: int):
    """Rows of length 1 around common centres, float32 (m, WIDTH), a block at a time."""
    for start in range(0, rows, BLOCK):
        yield _around(start, min(BLOCK, rows - start))


def probes(rows: int) -> np.ndarray:
    """Queries that are drawn as the rows are, but are none of them."""
    return _around(rows, PROBES)


def _around(seed: int, count: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH))
    draw = np.random.default_rng((1, seed))
    points = centres[draw.integers(CLUSTERS, size=count)]
    points = points + 0.7 * draw.normal(size=points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
