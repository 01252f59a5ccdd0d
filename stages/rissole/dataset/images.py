"""Pictures of the split: read from Parquet, turned into tensors and back, shown.

Nothing else converts ranges: a picture is RGB uint8 (h w 3) on disk and
float32 (3 h w) in -1..1 in a network.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files, memory
from rissole.core.config import Extent
from rissole.harness.errors import InputError

import numpy as np
from PIL import Image

SPLITS = ("train", "val")
LARGEST_GRID = 200_000  # bytes: what a picture in git may weigh


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split, in the order on disk.

    Attributes:
        ids: int64 (n,).
        labels: n strings, or None where an image has no label.
        groups: n strings, or None where an image belongs to no group.
        images: uint8 (n, h, w, 3); (n, 0, 0, 3) where they were left on disk.
    """

    ids: np.ndarray
    labels: list[str | None]
    groups: list[str | None]
    images: np.ndarray


def read_shards(folder: Path, split: str, pictures: bool = True) -> Iterator[ImageSet]:
    """The images of a split, one file at a time; `pictures=False` leaves the pixels on disk."""
    for path in shards(folder, split):
        yield read_shard(path, pictures)


def read_shard(path: Path, pictures: bool = True) -> ImageSet:
    """The images of one file."""
    table = files.read_table(path, ["id", "label", "group", *(["image"] if pictures else [])])
    size = int(table.schema.metadata[b"size"]) if pictures else 0
    return ImageSet(
        table["id"].to_numpy(),
        table["label"].to_pylist(),
        table["group"].to_pylist(),
        files.bytes_array(table["image"], np.uint8, (size, size, 3))
        if pictures
        else np.empty((len(table), 0, 0, 3), np.uint8),
    )


def read_split(folder: Path, split: str, pictures: bool = True) -> ImageSet:
    """All images of a split, the pixels in memory where they fit (`memory.array`)."""
    rows = sum(len(files.read_table(path, [])) for path in shards(folder, split))
    ids, labels, groups, images, start = np.empty(rows, np.int64), [], [], None, 0
    for part in read_shards(folder, split, pictures):
        if images is None:
            images = memory.array((rows, *part.images.shape[1:]), np.uint8, f"{split} images")
        stop = start + len(part.ids)
        ids[start:stop], images[start:stop] = part.ids, part.images
        labels += part.labels
        groups += part.groups
        start = stop
    return ImageSet(ids, labels, groups, images)


def read_pictures(path: Path) -> np.ndarray:
    """The column `image` of a Parquet file whose metadata tells the `size`: uint8 (n, h, w, 3)."""
    table = files.read_table(path, ["image"])
    size = int(table.schema.metadata[b"size"])
    return files.bytes_array(table["image"], np.uint8, (size, size, 3))


def to_float(images: np.ndarray, device="cpu"):
    """Pictures uint8 (b, h, w, 3) as a tensor float32 (b, 3, h, w) in -1..1, on a device."""
    import torch

    return torch.tensor(images, device=device).movedim(-1, 1).contiguous().float() / 127.5 - 1


def to_uint8(images) -> np.ndarray:
    """A tensor (b, 3, h, w) in -1..1 as pictures uint8 (b, h, w, 3), rounded and clamped."""
    import torch

    levels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.movedim(1, -1).contiguous().cpu().numpy()


def write_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write pictures uint8 (n, h, w, 3) in rows of `columns` as a PNG that git can bear.

    True colour where that fits 200 kB; else 256 colours chosen for the picture; else smaller.
    """
    n, height, width, _ = images.shape
    sheet = np.full((-(-n // columns) * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = image
    content = next(
        content
        for content in map(_png, _ever_smaller(Image.fromarray(sheet)))
        if len(content) < LARGEST_GRID
    )
    with files.replacing(path) as scratch:
        scratch.write_bytes(content)


def _ever_smaller(sheet: Image.Image) -> Iterator[Image.Image]:
    yield sheet
    while True:
        yield sheet.quantize(256)
        sheet = sheet.reduce(2)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def extent(folder: Path) -> Extent:
    """How many train images a split has, and how large they are."""
    about = [files.read_table(path, []) for path in shards(folder, "train")]
    return Extent(sum(map(len, about)), int(about[0].schema.metadata[b"size"]))


def shards(folder: Path, split: str) -> list[Path]:
    """The files of a split, in order. Raises InputError where there is none."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise InputError(f"{folder} holds no {split} images; `dvc repro` makes what a stage needs")
    return paths
