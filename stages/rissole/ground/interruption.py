"""What ctrl-C and `kill` do: end a stage at once, or a training once its state is kept.

Several processes of a training end at once too: they would stop at steps of their own.
"""

import signal

SECONDS = 4.0  # that a training has to finish its step

_patient = _asked = False


def listen() -> None:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hear)
    signal.signal(signal.SIGALRM, signal.default_int_handler)


def wait_for_state() -> None:
    """From now on let what is interrupted go on until `asked` is heeded, or for `SECONDS`."""
    global _patient
    _patient = True


def asked() -> bool:
    """Whether somebody wants this process to end."""
    return _asked


def heed() -> bool:
    """Whether somebody wants this process to end; if so, it may take the time to keep its state."""
    if _asked:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _asked


def _hear(number: int, frame) -> None:
    global _asked
    if not _patient or _asked:
        raise KeyboardInterrupt
    _asked = True
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
