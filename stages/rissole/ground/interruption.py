"""What ctrl-C and `kill` do: end a stage at once, or a training once its state is kept.

Of several processes of a training the first keeps the state. The others go on until then, or it
would wait for them in the middle of a step; without it they cannot.
"""

import ctypes
import os
import signal
import sys
import threading

SECONDS = 4.0  # that a training has to finish its step
PARENT_ENDS = 1  # PR_SET_PDEATHSIG: what prctl(2) calls the signal of that

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
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_ENDS, signal.SIGTERM)


def wait_for_state() -> None:
    """From now on let what is interrupted go on until `asked` is heeded, or for `SECONDS`.

    A second signal ends it at once.
    """
    global _patient
    _patient = True


def wait_for_state_together(first: bool) -> None:
    """The same for one of several processes, of which the first keeps the state.

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
    """Whether somebody wants this process to end, and it is one that keeps the state."""
    return _asked and not _follows


def asked_together() -> bool:
    """Whether somebody wants several processes to end, of which this is one."""
    return _asked and _together


def heed() -> bool:
    """Whether somebody wants this process to end; if so, it may take the time to keep its state."""
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


def _end_in_time(heard: int) -> None:
    while os.read(heard, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    if not _heeded.wait(SECONDS):
        os._exit(130)
