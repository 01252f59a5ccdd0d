"""Seconds of calls that are to be compared."""

import time
from collections.abc import Callable
from statistics import median

import torch


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
