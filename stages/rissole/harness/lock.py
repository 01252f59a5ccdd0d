"""Locks that go with the process that holds them, however it ends."""

import os
import sys
from pathlib import Path

from rissole.harness.errors import InputError

from filelock import FileLock, Timeout

_held = []  # a lock is released with its object


def hold(path: Path, what: str) -> None:
    """Hold a lock until this process ends.

    Args:
        path: of the lock; a file beside it names the process.
        what: is being done meanwhile.

    Raises:
        InputError: another process holds it, and is named.
    """
    holder, lock = path.with_suffix(".holder"), FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        _held.append(lock)
        holder.write_text(f"{os.getpid()} {os.uname().nodename}\n")
    except Timeout:
        number, host = (holder.read_text() if holder.exists() else "").split() or ["?", "?"]
        raise InputError(
            f"process {number} of {host} is at {what} already: wait for it, or end it"
            f" (`kill {number}`)"
        ) from None
    except (OSError, NotImplementedError) as error:  # no room, or a file system without locks
        print(f"{path}: {error}: start no other process beside this", file=sys.stderr)
