"""Seconds of calls that are to be compared, and the most arithmetic that the machine does."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

PRODUCTS = 4  # in a row: on CUDA a wait for one would count the launch


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each of some calls, after one call of each to warm up.

    The calls take turns: what slows the machine down for a while slows all of them.
    """
    device = "cuda" if torch.cuda.is_available() else None
    seconds = {name: [] for name in calls}
    for turn in range(1 + repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(of) for name, of in seconds.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off the screen what libraries in C++ write to the standard error."""
    screen, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nothing)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP per second of the fastest product of two square matrices of a type."""
    rates = []
    for side in (4096, 8192) if device.type == "cuda" else (512, 1024, 2048):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def products(a=a, b=b) -> None:
            for _ in range(PRODUCTS):
                a @ b

        seconds = interleaved({"products": products}, 10)["products"]
        rates.append(PRODUCTS * 2 * side**3 / seconds)
    return max(rates)
