"""Pictures on their way into the split: decoded, cut to size, written as shards."""

import hashlib
import io
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from rissole.core import files
from rissole.dataset.images import SPLITS
from rissole.dataset.sources import Record
from rissole.harness.errors import InputError

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

# What is read of what Pillow could read: EPS would start Ghostscript, and the parsers of kinds that
# hardly anyone has are where most of its faults are found.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
LONGEST = 50  # times the other side: what is scaled of a side


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, cut to size.

    Attributes:
        id: first 8 bytes of the SHA-256 of its decoded pixels, before the crop.
        twin: the same of its pixels after the resize; equal for pictures that look the same here.
        pixels: uint8 (size, size, 3).
    """

    id: int
    twin: int
    pixels: np.ndarray


def decode(content: bytes) -> Image.Image:
    """Decode an image file to upright RGB, 8 bits, whatever it holds.

    Turned as its EXIF says; transparency laid on white; 16-bit grey scaled to 8 bits; of a moving
    picture the first frame.

    Raises:
        ValueError: where the pixels have no known range (32-bit integers, floats).
        Exception: of any kind, as PIL raises on a broken file.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"not an image, or none of {', '.join(FORMATS)}") from None
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(image: Image.Image, size: int) -> np.ndarray:
    """Scale the shorter side to `size` (bilinear, antialiased), then crop: (size, size, 3).

    Of a strip only the middle is scaled, as all of it could take gigabytes.
    """
    width, height = (min(side, LONGEST * min(image.size)) for side in image.size)
    if (width, height) != image.size:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def prepare(record: Record, size: int) -> Picture | str:
    """Read, decode and fit one image; where that fails, say why."""
    try:
        content = record.read()
    except OSError as error:
        return str(error)
    try:
        image = decode(content)
        pixels = fit(image, size)
    except Exception as error:  # PIL raises almost anything; one bad file must not end the run
        return " ".join(str(error).split()) or type(error).__name__
    return Picture(_number(image.tobytes()), _number(pixels.tobytes()), pixels)


def prepare_all(records: Sequence[Record], size: int) -> Iterator[tuple[Record, Picture | str]]:
    """Prepare images in their order, on at most 8 cores, holding no more than 512 of them.

    Fresh processes, not forked ones: threads of the parent may hold locks.

    Raises:
        InputError: a process was ended from outside, or by an image.
    """
    workers, spawn = min(8, len(os.sched_getaffinity(0))), get_context("spawn")
    until_closed, wanted = spawn.Pipe(duplex=False)
    chunk = records[:1]
    with ProcessPoolExecutor(workers, spawn, _begin, (until_closed,)) as pool:
        try:
            for start in range(0, len(records), 512):
                held = records[start : start + 512]
                chunks = [held[i : i + 16] for i in range(0, len(held), 16)]
                with _without_interrupts():  # which the workers start under, and take over
                    made = deque(pool.submit(_prepare_chunk, chunk, size) for chunk in chunks)
                for chunk in chunks:
                    yield from zip(chunk, made.popleft().result(), strict=True)
        except BrokenProcessPool:
            raise InputError(
                f"a process that reads images ended all at once, at '{chunk[0].name}' or soon after"
                " it: memory ran out, or an image crashed its decoder; run it again with more"
                " memory, or without that image"
            ) from None
        except BaseException:
            wanted.close()  # not killed: a result half written would be waited for, for ever
            pool.shutdown(cancel_futures=True)
            raise


def _prepare_chunk(records: list[Record], size: int) -> list[Picture | str]:
    return [prepare(record, size) for record in records if not _until_closed.poll()]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hear of ctrl-C later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(until_closed: Connection) -> None:
    """Begin a worker, which ends with its parent, even where that was ended by `kill -9`."""
    global _until_closed
    _until_closed = until_closed

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def write_splits(
    folder: Path, rows: Iterable[tuple[str, Record, Picture]], size: int, shard: int
) -> dict[str, int]:
    """Write rows as they come into Parquet files of `shard` images, holding no more than that.

    Args:
        folder: where `<split>-<number>.parquet` go.
        rows: the split, the record and the picture of each image.
        size: pixels per side.
        shard: images per file.

    Returns:
        The number of images of each split.
    """
    waiting = {split: _Shard(np.empty((shard, size, size, 3), np.uint8)) for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)

    def flush(split: str) -> None:
        number = (counts[split] - 1) // shard
        files.write_table(folder / f"{split}-{number:05}.parquet", waiting[split].table())
        waiting[split].rows.clear()

    for split, record, picture in rows:
        waiting[split].add(record, picture)
        counts[split] += 1
        if counts[split] % shard == 0:
            flush(split)
    for split in SPLITS:
        if waiting[split].rows:
            flush(split)
    return counts


@dataclass
class _Shard:
    """Rows on their way to a file; the pixels are copied into one block that is used again."""

    pixels: np.ndarray
    rows: list[tuple] = field(default_factory=list)

    def add(self, record: Record, picture: Picture) -> None:
        self.pixels[len(self.rows)] = picture.pixels
        self.rows.append((picture.id, record.label, record.group, record.name))

    def table(self) -> pa.Table:
        ids, labels, groups, names = zip(*self.rows, strict=True)
        columns = {
            "id": pa.array(ids, pa.int64()),
            "label": pa.array(labels, pa.string()),
            "group": pa.array(groups, pa.string()),
            "source": pa.array(names, pa.string()),
            "image": files.bytes_column(self.pixels[: len(ids)]),
        }
        return pa.table(columns).replace_schema_metadata({"size": str(self.pixels.shape[1])})


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)
