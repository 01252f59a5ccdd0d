"""Arrays as large as a data set: in memory where they fit, else on disk, and the log says which."""

import ctypes
import os
import sys
from pathlib import Path
from tempfile import TemporaryFile

from rissole.core import files

import numpy as np

SHARE = 0.5  # of the free memory that one array may take
TRIMMED_FROM, MAPPED_FROM = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
LARGE, IDLE = 2**28, 2**30  # bytes


def array(shape: tuple[int, ...], dtype: type, name: str) -> np.ndarray:
    """An array to be filled: in memory, or on disk where it would take half of what is free.

    The mapped file lies in the current folder and has no name any more: it goes when its process
    goes, however that ends. Raw rows rather than Arrow, whose files hold no such column in one
    piece.

    Args:
        shape: of it.
        dtype: of it.
        name: what the log calls it.

    Raises:
        InputError: neither memory nor disk has room for it.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= SHARE * free():
        return np.empty(shape, dtype)
    print(
        f"{name}: {size / 1e9:.1f} GB where {free() / 1e9:.1f} GB of memory are free: they are read"
        " from disk as needed (memory-mapped)",
        file=sys.stderr,
    )
    folder = Path.cwd()
    with TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk ends in a bus error
        except OSError as error:
            if not files.disk_is_full(error):
                raise
            raise files.no_room(folder / name, size) from None
        return np.memmap(file, dtype, "r+", shape=shape)


def keep_freed() -> None:
    """From now on keep what tensors free for the next ones, instead of giving it back to Linux.

    Fetching it anew, page by page, costs a sixteenth of a training. Arrays as large as a data set
    are given back, and so is what lies idle beyond `IDLE`.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if library.mallopt(MAPPED_FROM, LARGE):
            library.mallopt(TRIMMED_FROM, IDLE)


def fits(size: int, device) -> bool:
    """Whether so many bytes are at most half of the free memory of a device."""
    import torch

    return size <= SHARE * (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free())


def free() -> int:
    """The bytes of memory that this process can count on without swapping.

    What Linux says is available (elsewhere, all there is), no more than the container still may
    have, and of that an equal share for each process of a stage on this machine.
    """
    known, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if known.exists():
        lines = (line.split() for line in known.read_text().splitlines())
        most = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    if limit.exists() and limit.read_text().strip() != "max":
        used = int(limit.with_name("memory.current").read_text())
        lines = limit.with_name("memory.stat").read_text().splitlines()
        held = {name: int(size) for name, size in map(str.split, lines)}
        cached = held["active_file"] + held["inactive_file"]  # files': given back when asked for
        most = min(most, int(limit.read_text()) - used + cached)
    return most // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
