"""Threads that work on whole items, each alone: shares of a batch, batches, files.

The threads of one operation (OpenMP's) wait for each other at its end, hundreds of times in a
training step, and spin while they wait. On idle cores that costs nothing; beside other work a step
takes as long as the slowest thread at each of these ends. Threads that meet once a step are as
fast on idle cores, and lose beside other work what that takes, and no more.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_local = threading.local()  # of each thread: its generator
_pool: ThreadPoolExecutor | None = None
_count = 1


def start(threads: int) -> None:
    """Have as many threads from now on, where work comes in items; 1 is the caller's own."""
    global _pool, _count
    if threads != _count:
        _pool = None
        if threads > 1:
            one = torch.set_num_threads
            _pool = ThreadPoolExecutor(threads, "worker", initializer=one, initargs=(1,))
        _count = threads


def count() -> int:
    """How many items are worked on at once."""
    return _count


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results of `work` on each item, in order, as many items at a time as there are threads.

    Work that draws random numbers draws them from `generator`.
    """
    if _pool is None:
        yield from map(work, items)
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def alone(item: Item) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad and not inference):
            return work(item)

    for first in range(0, len(items), _count):
        yield from _pool.map(alone, items[first : first + _count])


def seed(number: int) -> None:
    """Seed the generator of this thread."""
    _local.generator = torch.Generator().manual_seed(number)


def generator() -> torch.Generator | None:
    """This thread's own on the CPU, once it was seeded; else None, for torch's global one."""
    return getattr(_local, "generator", None)


class Dropout(torch.nn.Module):
    """Dropout whose mask is drawn from `generator`, as threads share torch's global one."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero a share of x (...) and scale the rest, in training."""
        if not self.training or not self.share:
            return x
        mask = torch.empty_like(x).bernoulli_(1 - self.share, generator=generator())
        return x * mask / (1 - self.share)
