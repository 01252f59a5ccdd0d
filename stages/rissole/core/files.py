"""Files on disk, whole or not at all: Parquet tables, tensors, JSON."""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rissole.core import processes
from rissole.harness.errors import InputError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name only if the body succeeds.

    Where several processes share a stage, all write, and the file of the first is kept.

    Raises:
        InputError: the disk is full.
    """
    scratch = path.with_name(f".{path.name}.{processes.rank()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        if processes.first():
            _sync(scratch)
            scratch.replace(path)
    except Exception as error:
        if not disk_is_full(error):
            raise
        size = scratch.stat().st_size if scratch.exists() else 0
        scratch.unlink(missing_ok=True)
        raise no_room(path, size) from None
    finally:
        scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """See a file safely on the disk, so that not even a power cut leaves half of it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def disk_is_full(error: Exception) -> bool:
    """Whether that is what an error says; libraries in Rust say it in words alone."""
    number = getattr(error, "errno", None)
    full = (errno.ENOSPC, errno.EDQUOT)
    return number in full or any(f"(os error {of})" in str(error) for of in full)


def no_room(path: Path, size: int) -> InputError:
    """The error to raise where a disk is full: of `path` at least `size` bytes are needed."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return InputError(
        f"{path}: the disk is full: it needs more than {size / 1e6:,.1f} MB, and"
        f" {shutil.disk_usage(folder).free / 1e6:,.1f} MB were free in {folder} (nothing"
        " half-written is left there); make room, and the same command goes on"
    )


def measured(metrics: Path, kind: str, name: str, suffix: str = "json") -> Path:
    """Where a measurement stands: in <kind>/ of a folder, of an ablation in ablations/<kind>/.

    Args:
        metrics: the folder.
        kind: of measurement, such as `fid`.
        name: of a row, `ablations/` before it if it is one.
        suffix: of the file.
    """
    family, slash, row = name.partition("/")
    place = metrics / family / kind if slash else metrics / kind
    return place / f"{row if slash else name}.{suffix}"


def rounded(content):
    """Nested figures with their floats cut to six digits, as they are written and compared."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    return float(f"{content:.6g}") if isinstance(content, float) else content


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8."""
    with replacing(path) as scratch:
        scratch.write_text(content, "utf-8")


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON. Raises ValueError on NaN, which is never a result."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """The content of a JSON file. Raises InputError where it is missing or broken."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); run `dvc repro` again") from None


def write_record(path: Path, content: dict) -> None:
    """Write JSON that stages depend on, with a checksum of its own."""
    write_json(path, content | {"sha256": _said(content)})


def read_record(path: Path) -> dict:
    """What `write_record` wrote. Raises InputError where it is missing, broken or changed."""
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("sha256", None) != _said(content):
        raise InputError(f"{path}: not as it was written; delete it and run `dvc repro`")
    return content


def _said(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet in row groups of 1,024, which equal tables make byte-identical."""
    with growing_table(path) as add:
        add(table)


@contextmanager
def growing_table(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Yield what takes the rows of a Parquet file, piece by piece.

    The file is that which `write_table` makes of all pieces at once; no more than a row group and
    a piece are held.
    """
    if not processes.first():
        yield lambda piece: None
        return
    with replacing(path) as scratch, ExitStack() as stack:
        waiting, writer = [], None

        def flush(least: int) -> None:
            rows = pa.concat_tables(waiting)
            whole = len(rows) // least * least
            for start in range(0, whole, ROW_GROUP):  # in one piece, as pages end where pieces do
                group = rows.slice(start, min(ROW_GROUP, whole - start)).combine_chunks()
                writer.write_table(group, ROW_GROUP)
            waiting[:] = [rows.slice(whole)] if whole < len(rows) else []

        def add(piece: pa.Table) -> None:
            nonlocal writer
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(scratch, piece.schema, **PARQUET))
            waiting.append(piece)
            if sum(map(len, waiting)) >= ROW_GROUP:
                flush(ROW_GROUP)

        yield add
        if waiting:
            flush(1)


ROW_GROUP = 1024  # rows
PARQUET = {
    "compression": "zstd",
    "compression_level": 1,  # levels 3 and 9 shrink drawings by 5 and 15 % more, at 3x the time
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet table, or some of its columns, its schema's metadata kept.

    Raises InputError where the file is missing, broken or has not got the columns.
    """
    if not path.exists():
        raise _missing(path)
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as Parquet ({error}); delete it and run `dvc repro`"
        ) from None


def bytes_column(array: np.ndarray) -> pa.Array:
    """Rows of `array` (n, ...) as fixed-size binary, n values: 6 to 20x faster than lists."""
    width = math.prod(array.shape[1:]) * array.itemsize
    buffers = [None, pa.py_buffer(np.ascontiguousarray(array))]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(array), buffers)


def bytes_array(column: pa.ChunkedArray, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A fixed-size binary column as a read-only array (n, *shape) of `dtype`.

    Raises InputError where the column's width is not that of `shape`.
    """
    width = math.prod(shape) * np.dtype(dtype).itemsize
    if column.type.byte_width != width:
        raise InputError(
            f"a column holds {column.type.byte_width} bytes a row where {shape} of"
            f" {np.dtype(dtype)} needs {width}: the file belongs to another preset;"
            " run `dvc repro`"
        )
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width :][: len(chunk) * width]
        for chunk in column.chunks
    ]
    joined = chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.uint8), *chunks])
    return joined.view(dtype).reshape(-1, *shape)


def lists_column(array: np.ndarray) -> pa.Array:
    """Rows of `array` (n, d) as fixed-size lists, n values."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1]
    )


def lists_array(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size list column as an array (n, d)."""
    values = column.combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    return values.flatten().to_numpy().reshape(-1, column.type.list_size)


def write_curve(path: Path, steps: list[dict[str, float]]) -> None:
    """Write what each step of a training measured as CSV, at most 200 lines.

    A line holds the number of the last step and the mean of each term since the line before; a
    term that no step took is empty.
    """
    names = dict.fromkeys(name for terms in steps for name in terms)
    width = -(-len(steps) // 200)
    with replacing(path) as scratch, scratch.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["step", *names])
        for start in range(0, len(steps), width):
            part = steps[start : start + width]
            taken = [[float(terms[name]) for terms in part if name in terms] for name in names]
            means = [f"{sum(of) / len(of):.5g}" if of else "" for of in taken]
            lines.writerow([start + len(part), *means])


def write_tensors(path: Path, tensors: dict, about: dict[str, object]) -> None:
    """Write tensors as safetensors, with `about` (JSON values) and a checksum as its metadata."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = json.dumps(about)
    with replacing(path) as scratch:
        # One entry, as several would stand in an order of their own at each run.
        save_file(tensors, scratch, {"about": f"{_checksum(tensors, said)} {said}"})
        scratch.chmod(0o644)  # safetensors keeps its files from other users


def read_tensors(path: Path) -> tuple[dict, dict]:
    """The tensors of a safetensors file that `write_tensors` wrote, and what was said about them.

    Raises InputError where the file is missing, broken or another's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise _missing(path)
    try:
        with safe_open(path, "pt") as file:
            checksum, _, said = file.metadata()["about"].partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if checksum != _checksum(tensors, said):
                raise ValueError("its checksum is that of other content")
            return tensors, json.loads(said)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as tensors that this version wrote ({error}); delete it and"
            " run `dvc repro`"
        ) from None


def _checksum(tensors: dict, said: str) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, and what is said of them."""
    import torch

    digest = hashlib.sha256(said.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(path: Path) -> InputError:
    return InputError(f"{path} does not exist; `dvc repro` makes what a stage needs")
