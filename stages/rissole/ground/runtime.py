"""How a stage runs: its processes, its device and threads, its progress line, its errors."""

import hashlib
import inspect
import os
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, redirect_stdout, suppress
from pathlib import Path
from urllib.parse import quote, unquote

from rissole.ground import command, files, identity, interruption, lock, memory, processes
from rissole.ground.errors import InputError

LONGEST = 150  # characters of what was called that the name of a file holds


def run(main: Callable[..., None], shared: bool = False) -> None:
    """Call a stage's `main` with what the command line says (`command.parser`).

    An InputError becomes one line and exit status 1, ctrl-C and `kill` one and 130. Of several
    processes only the first speaks. No two processes can be at the same words at once. How long
    they took is left in checkpoints/seconds/.

    Args:
        main: of the stage.
        shared: whether several processes can share the work (`processes`).
    """
    parser = command.parser(Path(inspect.getfile(main)))
    words = parser.parse_args()
    interruption.listen()
    try:
        processes.check(shared)
        if shared:
            processes.start_wanted()
        called = said(parser.prog, (str(value) for value in vars(words).values() if value))
        _keep_others_away(called)
        with (
            Path(os.devnull).open("w") as nothing,
            redirect_stdout(sys.stdout if processes.first() else nothing),
        ):
            main(**vars(words))
            _say_what_follows(Path(inspect.getfile(main)), words)
        _note_seconds(called)
    except InputError as error:
        _fail(f"{parser.prog}: {error}")
    except KeyboardInterrupt as interrupt:
        _stop(parser.prog, f"; {interrupt}" if str(interrupt) else "")
    except Exception:
        if interruption.asked_together():
            _stop(parser.prog)  # another process has gone
        if processes.count() > 1:
            _fail(traceback.format_exc().rstrip())
        raise


def _fail(why: str) -> None:
    """End with a reason, and at once where others wait: what ends NCCL in order waits for them."""
    if processes.count() == 1:
        sys.exit(why)
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def _stop(script: str, kept: str = "") -> None:
    """End at once, as threads and other processes may not be done yet."""
    if processes.first():
        print(f"{script}: stopped{kept}; the same command goes on", file=sys.stderr)
    os._exit(130)


def said(script: str, words: Iterable[str]) -> str:
    """What was called, as a file can be named; what is too long for that ends in a digest."""
    called = " ".join([script, *words])
    name = quote(called, safe=" ")
    digest = hashlib.sha256(called.encode()).hexdigest()[:16]
    return name if len(name) <= LONGEST else f"{name[:LONGEST]} {digest}"


def _keep_others_away(called: str) -> None:
    """Lock out a second process with the same words, where anything can be written at all."""
    if processes.first() and os.access(".", os.W_OK):
        lock.hold(Path("checkpoints", "running", f"{called}.lock"), f"`{unquote(called)}`")


def _say_what_follows(script: Path, words: Namespace) -> None:
    """Where it was not DVC that called it, and not for a part of the work."""
    said = [word for word in vars(words).values() if word]
    if "DVC_STAGE" not in os.environ and said == sys.argv[1:]:
        following = command.following(script, said)
        if following:
            print(following)


def _note_seconds(called: str) -> None:
    """Leave how long it took to who looks back, such as the report; no work is lost over that."""
    if processes.first():
        with suppress(InputError, OSError):
            seconds = time.perf_counter() - command.STARTED
            files.write_json(identity.folder("seconds") / f"{called}.json", {"seconds": seconds})


def set_up(threads: int):
    """Meet the other processes, and choose the device.

    That is CUDA where there is any, each process of a machine with a device of its own, else the
    CPU with `threads` threads. Their number is a parameter because sums change their last bits
    with it.

    Raises:
        InputError: there are more processes on this machine than CUDA devices.
    """
    import torch

    torch.set_num_threads(threads)
    memory.keep_freed()
    if not torch.cuda.is_available():
        processes.join()
        return torch.device("cpu")
    number, devices = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= devices:
        raise InputError(
            f"process {number + 1} of this machine has no CUDA device of its own: there are"
            f" {devices}; start as many processes"
        )
    torch.cuda.set_device(number)
    torch.backends.cudnn.allow_tf32 = False  # what is not in bf16 is meant to be exact
    processes.join()
    return torch.device("cuda", number)


def machine(device) -> list:
    """What the last bits of a result depend on: device, precision, threads, version of torch."""
    import torch

    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    mixed = mixes_precision(device)
    return [kind, *(["bf16"] if mixed else []), torch.get_num_threads(), torch.__version__]


def mixes_precision(device) -> bool:
    """Whether bf16 pays: on CUDA, and on CPUs that multiply matrices of it (AMX).

    CPUs that have vector instructions alone for it are faster in single precision.
    """
    import torch

    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()


def autocast(device) -> AbstractContextManager:
    """Mixed precision where it pays (`mixes_precision`)."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=mixes_precision(device))


def peak_memory(device) -> int:
    """The most memory held so far, in MB: by tensors on CUDA, else by the whole process."""
    import resource

    import torch

    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def progress(
    items: Iterable, name: str, unit: str, total: int | None = None, scale: float = 1, done: int = 0
):
    """Iterate over `items` behind one line of progress: share done, rate, time left.

    A terminal's line is redrawn; a log gets a line every 15 s.

    Args:
        items: what to iterate over.
        name: what the line begins with.
        unit: what is counted.
        total: how many items there are, where `items` has no length.
        scale: units in an item (a step of 16 images counts 16 images).
        done: how many items were done before.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=name,
        unit=unit,
        total=total,
        initial=done,
        unit_scale=scale if scale != 1 else False,
        mininterval=0.2 if terminal else 15,
        maxinterval=10 if terminal else 60,  # then a line is repeated
        delay=0 if terminal else 15,
        leave=False,
        file=sys.stderr if terminal else _Lines(),
        dynamic_ncols=terminal,
        disable=not processes.first(),
    )


def seeded(*words: int) -> int:
    """A 64-bit seed that is a function of `words`, such as (seed, step) or (seed, image, block)."""
    import numpy as np

    # SeedSequence takes (1,) and (1, 0) for the same.
    return int(np.random.SeedSequence((len(words), *words)).generate_state(1, np.uint64)[0])


def evenly(n: int, count: int):
    """At most `count` of n rows, evenly spread, in order: int64 (min(n, count),)."""
    import numpy as np

    count = min(n, count)
    return np.arange(count) * n // max(count, 1)


class _Lines:
    """A log for tqdm to write to: each redrawing on a line of its own, blank ones left out."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
