"""What ctrl-C and `kill` do: end a stage at once, or a training once its checkpoint is kept.

Of several processes of a training the first keeps the checkpoint. The others go on until then, or
it would wait for them in the middle of a step; without it they cannot.
"""

import os
import select
import signal
import threading
from pathlib import Path

SECONDS = 4.0  # that a training has to finish its step

_patient = _together = _follows = _asked = False
_heeded = threading.Event()


def listen() -> None:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, in the main thread.

    A process that DVC started gets a SIGTERM when DVC ends, even by `kill -9` (on Linux): nobody
    else would take what it makes.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hear)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    if "DVC_STAGE" in os.environ and hasattr(os, "pidfd_open"):
        threading.Thread(target=_end_with_dvc, daemon=True).start()


def wait_for_checkpoint() -> None:
    """From now on let what is interrupted go on until `asked` is heeded, or for `SECONDS`.

    A second signal ends it at once.
    """
    global _patient
    _patient = True


def wait_for_checkpoint_together(first: bool) -> None:
    """The same for one of several processes, of which the first keeps the checkpoint.

    A second signal changes nothing: launchers pass on what all have heard. A process may be
    waiting for the others when it hears one, deaf to Python, so a thread looks after the time.

    Args:
        first: whether this is the first of them.
    """
    global _patient, _together, _follows
    _patient, _together, _follows = True, True, not first
    heard, said = os.pipe()
    os.set_blocking(said, False)
    signal.set_wakeup_fd(said, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(heard,), daemon=True).start()


def asked() -> bool:
    """Whether somebody wants this process to end, and it is one that keeps the checkpoint."""
    return _asked and not _follows


def asked_together() -> bool:
    """Whether somebody wants several processes to end, of which this is one."""
    return _asked and _together


def heed() -> bool:
    """Whether somebody wants this process to end; if so, it may take the time to save."""
    if asked():
        signal.setitimer(signal.ITIMER_REAL, 0)
        _heeded.set()
    return asked()


def _hear(number: int, frame) -> None:
    global _asked
    if not _patient or (_asked and not _together):
        raise KeyboardInterrupt
    if not _together:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    _asked = True


def _end_with_dvc() -> None:
    try:
        dvc = os.pidfd_open(_dvc())
    except OSError:  # it has ended already, is another user's, or the kernel is older than 5.3
        return
    select.select([dvc], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


def _dvc() -> int:
    """The first ancestor that knows of no stage: shells and torchrun stand between, and do.

    The signal that Linux sends when a parent ends (PR_SET_PDEATHSIG) would be that of a shell,
    which Debian's `sh`, unlike bash, keeps waiting for its only command.
    """
    number = os.getppid()
    while b"DVC_STAGE=" in Path(f"/proc/{number}/environ").read_bytes():
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        number = int(fields[1])
    return number


def _end_in_time(heard: int) -> None:
    while os.read(heard, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    if not _heeded.wait(SECONDS):
        os._exit(130)
