"""Files on disk, whole or not at all: Parquet tables, tensors, JSON."""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rissole.ground import processes
from rissole.ground.errors import InputError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name only if the body succeeds.

    Where several processes share a stage, all write, and the file of the first is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{processes.rank()}.partial")
    try:
        yield scratch
        if processes.first():
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def measured(kind: str, name: str, suffix: str = "json") -> Path:
    """Where a measurement stands: metrics/<kind>/, of an ablation metrics/ablations/<kind>/.

    Args:
        kind: of measurement, such as `fid`.
        name: of a row, `ablations/` before it if it is one.
        suffix: of the file.
    """
    family, _, row = name.rpartition("/")
    return Path("metrics", family, kind, f"{row}.{suffix}")


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
            writer.write_table(rows.slice(0, whole), ROW_GROUP)
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
}


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet table, or some of its columns, its schema's metadata kept.

    Raises InputError where the file is missing, broken or has not got the columns.
    """
    if not path.exists():
        raise _missing(path)
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from None


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
    """Write tensors as safetensors, with `about` (JSON values) as its metadata."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as scratch:
        save_file(tensors, scratch, {"about": json.dumps(about)})
        scratch.chmod(0o644)  # safetensors keeps its files from other users


def read_tensors(path: Path) -> tuple[dict, dict]:
    """The tensors of a safetensors file and what was written about them.

    Raises InputError where the file is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise _missing(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(path: Path) -> InputError:
    return InputError(f"{path} does not exist; `dvc repro` makes what a stage needs")
