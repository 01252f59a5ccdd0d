"""Locks that go with the process that holds them, however it ends."""

import fcntl
import os
import sys
import time
from pathlib import Path

from rissole.ground import files
from rissole.ground.errors import InputError


def hold(path: Path, what: str) -> int | None:
    """Hold a lock until this process ends, or until `release`.

    Args:
        path: of the lock, a file that names the process.
        what: is being done meanwhile.

    Returns:
        The open file, or None where the file system knows no locks: then the log says so.

    Raises:
        InputError: another process holds it, and is named; or the disk is full.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                os.truncate(file, 0)
                os.write(file, f"{os.getpid()} {os.uname().nodename}\n".encode())
                return file
            os.close(file)  # its holder removed it meanwhile: lock what is there now
        except BlockingIOError:
            os.close(file)
            holder = _holder(path)
            if holder is not None:  # else it has ended meanwhile
                raise _taken(holder, what) from None
        except OSError as error:
            if files.disk_is_full(error):
                raise files.no_room(path, 0) from None
            print(f"{path}: {error.strerror}: start no other process beside this", file=sys.stderr)
            return None


def release(lock: int | None) -> None:
    """Give a lock back."""
    if lock is not None:
        os.close(lock)


def _holder(path: Path) -> list[str] | None:
    """Number and host of the process that a lock names; None where the lock is gone."""
    for _ in range(20):  # the holder has yet to write its name
        try:
            words = path.read_text().split()
        except FileNotFoundError:
            return None
        if words:
            return words
        time.sleep(0.05)
    return ["?", "?"]


def _taken(holder: list[str], what: str) -> InputError:
    number, host = holder
    return InputError(
        f"process {number} of {host} is at {what} already: wait for it, or end it (`kill {number}`)"
    )
