"""How a stage runs: its command line, its device and threads, its progress line, its errors."""

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from rissole.ground.errors import InputError


def run(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the words of the command line, one for each parameter.

    `--help` prints the script's docstring. An InputError becomes one line and exit status 1.
    """
    stage = inspect.getmodule(main)
    parser = argparse.ArgumentParser(
        description=stage.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in inspect.signature(main).parameters:
        parser.add_argument(name)
    words = parser.parse_args()
    try:
        main(**vars(words))
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")


def set_up(threads: int):
    """Choose the device: CUDA where there is one, else the CPU with `threads` threads.

    The number of threads is a parameter because sums change their last bits with it.
    """
    import torch

    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device) -> AbstractContextManager:
    """Mixed precision where it pays: bf16 on CUDA, and on CPUs with instructions for it."""
    import torch

    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def peak_memory(device) -> int:
    """The most memory held so far, in MB: by tensors on CUDA, else by the whole process."""
    import resource

    import torch

    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def progress(items: Iterable, name: str, unit: str, total: int | None = None, scale: float = 1):
    """Iterate over `items` behind one line of progress: share done, rate, time left.

    A terminal's line is redrawn; a log gets a line every 15 s.

    Args:
        items: what to iterate over.
        name: what the line begins with.
        unit: what is counted.
        total: how many items there are, where `items` has no length.
        scale: units in an item (a step of 16 images counts 16 images).
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=name,
        unit=unit,
        total=total,
        unit_scale=scale if scale != 1 else False,
        mininterval=0.2 if terminal else 15,
        delay=0 if terminal else 15,
        leave=False,
        file=sys.stderr if terminal else _Lines(),
        dynamic_ncols=terminal,
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


def learning_rate(step: int, steps: int, peak: float, warm_up: int, decay_from: float) -> float:
    """A linear rise over `warm_up` steps, a plateau, and a linear fall to 2 % of the peak.

    Args:
        step: from 0.
        steps: of the whole training.
        peak: the plateau's rate.
        warm_up: steps.
        decay_from: share of the steps after which the rate falls.
    """
    rise = min(1.0, (step + 1) / (warm_up + 1))
    fall = (steps - step) / max(1.0, steps * (1 - decay_from))
    return peak * rise * max(0.02, min(1.0, fall))


class _Lines:
    """A log for tqdm to write to: each redrawing on a line of its own, blank ones left out."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
