"""Where an exported model takes neighbours from: the images it came with, or somebody's folder."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rissole.dataset import images, prepare, sources
from rissole.dataset.prepare import Picture
from rissole.dataset.sources import Record
from rissole.first_stage.vqgan import VQGAN
from rissole.harness.errors import InputError
from rissole.latent.latents import Latents
from rissole.latent.pixels import Pixels
from rissole.retrieval import neighbours, search
from rissole.retrieval.settings import Retrieval
from rissole.retrieval.vectors import Vectors

import numpy as np
import torch
from PIL import Image
from torch import Tensor

TOGETHER = 256  # images that are read and encoded at once
LEAST = 3  # images of a folder, for the leak check to compare any


@dataclass(frozen=True)
class Database:
    """Images that neighbours are taken from.

    Attributes:
        latents: of the images.
        told: the images as the denoiser is told of them: their latents, or pictures.
        retrieval: how neighbours are looked up, or None where the row retrieves nothing.
        blocks: per side of the grid whose first block `first_block` looks at.
        queries: rows of the images that stand behind drawn ones, in their order, int64 (q).
        neighbours: rows of their neighbours, int64 (q, k), or None.
        names: of the images' files, where they are somebody's.
        left_out: files that are not among them, each with the reason.
    """

    latents: Latents
    told: Latents | Pixels
    retrieval: Retrieval | None
    blocks: int
    queries: np.ndarray | None = None
    neighbours: Tensor | None = None
    names: list[str] | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def look_up(self, asked: Latents, seed: int) -> Tensor:
        """The rows of the neighbours of some images, never one of the same picture, (q, k).

        By exact search. Rows that were trained with their query among its neighbours are none the
        less told others.

        Args:
            asked: latents of the images.
            seed: of a retrieval at random.
        """
        table = self.retrieval
        query = "latent" if table.query == "random" else table.query
        ours, theirs = (Vectors(of, query, self.blocks) for of in (self.latents, asked))
        index = search.choose(search.Exact(ours), table, seed)
        exclude = "self" if table.exclude == "none" else table.exclude
        ids, _ = neighbours.find(index, self.latents, asked, theirs, table.k, exclude)
        return torch.from_numpy(self.latents.rows(ids))

    def said(self, rows: np.ndarray) -> list:
        """What images are called: the names of their files, or else their ids."""
        if self.names is None:
            return self.latents.ids[rows].tolist()
        return [self.names[row] for row in rows.tolist()]


def of_folder(
    folder: Path,
    shipped: Database,
    first_stage: VQGAN,
    seed: int,
    progress: Callable[[int], AbstractContextManager],
) -> Database:
    """The images of a folder in the place of those that a model came with.

    Files that cannot be read are left out, and so are all but the first of the images that are the
    same, cut to size or encoded, or each other's mirrors. Every image is a query, in random order.

    Args:
        folder: with all that is below it.
        shipped: the database that the model came with.
        first_stage: encodes.
        seed: of the order.
        progress: opens a bar of so many files, with `update`.

    Raises:
        InputError: the folder is none, or has too few images.
    """
    size = side(first_stage, shipped.latents)
    records = _records(folder, size)
    names, ids, codes, levels, left_out, known = [], [], [], [], {}, {}
    with progress(len(records)) as bar:
        for name, picture, encoded in _read(records, size, first_stage):
            bar.update()
            if isinstance(picture, str):
                left_out[name] = picture
                continue
            looks = _digest(picture.pixels), _digest(encoded.numpy())
            twins = [known[look] for look in looks if look in known]
            if twins:
                left_out[name] = f"looks the same as {twins[0]}, or is its mirror"
                continue
            known |= dict.fromkeys((*looks, _digest(picture.pixels[:, ::-1])), name)
            names.append(name)
            ids.append(picture.id)
            codes.append(encoded)
            if isinstance(shipped.told, Pixels):
                levels.append(torch.from_numpy(picture.pixels.copy()).movedim(-1, 0))
    table = shipped.retrieval.model_copy(update={"share": 1.0})
    if len(names) < max(table.k + 1, LEAST):
        raise _too_few(folder, len(names), table.k, left_out)
    latents = _latents(shipped.latents, np.array(ids, np.int64), torch.stack(codes))
    told = replace(shipped.told, codes=torch.stack(levels)) if levels else latents
    own = {"retrieval": table, "names": names, "left_out": left_out}
    database = replace(shipped, latents=latents, told=told, **own)
    order = np.random.default_rng(seed).permutation(len(latents))
    return replace(database, queries=order, neighbours=database.look_up(latents, seed)[order])


def of_images(asked: list, shipped: Latents, first_stage: VQGAN) -> Latents:
    """Latents of images that are looked up.

    Args:
        asked: PIL images, or paths of files.
        shipped: latents that the model came with, whose codebook and moments hold for all.
        first_stage: encodes.

    Raises:
        InputError: one cannot be read, or is nothing of the kind.
    """
    pictures = []
    for number, image in enumerate(asked):
        picture = prepare.prepare(_record(image), side(first_stage, shipped))
        if isinstance(picture, str):
            name = "" if isinstance(image, Image.Image) else f", {image},"
            raise InputError(f"query {number}{name} cannot be read: {picture}; give another image")
        pictures.append(picture)
    codes = encode(first_stage, np.stack([picture.pixels for picture in pictures]))
    return _latents(shipped, np.array([picture.id for picture in pictures], np.int64), codes)


@torch.inference_mode()
def encode(first_stage: VQGAN, pictures: np.ndarray) -> Tensor:
    """The codes, int32 (n, h, w) on the CPU, of pictures uint8 (n, H, W, 3)."""
    device = first_stage.codebook().device
    return first_stage.encode(images.to_float(pictures, device)).int().cpu()


def side(first_stage: VQGAN, latents: Latents) -> int:
    """Pixels per side of the images."""
    return latents.shape[1] * 2 ** len(first_stage.settings.widths)


def _records(folder: Path, size: int) -> sources.Listing:
    """The image files of a folder and of those below it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one with images")
    try:
        return sources.folder(sources.bare(folder, size))
    except InputError as error:
        said = str(error).rpartition(" (")[0]  # what follows tells how to mend params.yaml
        raise InputError(f"{said}; name a folder of images that can be read") from None


def _read(
    records: sources.Listing, size: int, first_stage: VQGAN
) -> Iterator[tuple[str, Picture | str, Tensor | None]]:
    """Images by name with their codes, or why one cannot be read.

    By threads: other processes would run once more a script that has no guard against it.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(records), TOGETHER):
            some = records[start : start + TOGETHER]
            read = list(pool.map(lambda record: prepare.prepare(record, size), some))
            pictures = [picture.pixels for picture in read if isinstance(picture, Picture)]
            encoded = iter(encode(first_stage, np.stack(pictures)) if pictures else ())
            for record, picture in zip(some, read, strict=True):
                there = isinstance(picture, Picture)
                yield record.name, picture, next(encoded) if there else None


def _digest(values: np.ndarray) -> bytes:
    return hashlib.sha256(values.tobytes()).digest()


def _too_few(folder: Path, images: int, k: int, left_out: dict[str, str]) -> InputError:
    without = f" (left out: {len(left_out)})" if left_out else ""
    why = "".join(f"\n  {name}: {reason}" for name, reason in left_out.items())
    return InputError(
        f"{folder} holds {images} different images{without}, and each is told {k} others: give at"
        f" least {max(k + 1, LEAST)}{why}"
    )


def _latents(shipped: Latents, ids: np.ndarray, codes: Tensor) -> Latents:
    """Other images, in the codebook and with the moments of those that the model came with."""
    groups = np.array([None] * len(ids), object)
    own = {"ids": ids, "originals": ids, "groups": groups, "codes": codes}
    return replace(shipped, **own, identity="", embeddings=None)


def _record(image: Image.Image | str | Path) -> Record:
    if isinstance(image, Image.Image):
        return Record("an image", None, None, lambda: _png(image))
    if isinstance(image, str | Path):
        return Record(str(image), None, None, Path(image).read_bytes)
    raise InputError(f"a query is a PIL image or the path of one, not {type(image).__name__}")


def _png(image: Image.Image) -> bytes:
    """An image as a file without loss, so that it is decoded as any other is."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F"):
        image = image.convert("RGB")
    content = io.BytesIO()
    kind = "TIFF" if image.mode in ("I", "F") else "PNG"  # PNG would cut their range
    image.save(content, kind, exif=image.getexif())
    return content.getvalue()
