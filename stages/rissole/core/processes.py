"""One stage as several processes, on one machine or many, each with a part of the work.

`harness.launch` starts them. What a stage computes does not depend on their number, up to rounding.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar

from rissole.core import threads
from rissole.harness.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = timedelta(days=7)  # with a process whose files of the split take longer

_alone = ContextVar("alone", default=False)


def count() -> int:
    """How many processes share this stage: 1, unless torchrun started them."""
    return 1 if _alone.get() else int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if _alone.get() else int(os.environ.get("RANK", 0))


def first() -> bool:
    """Whether this process is the one whose files are kept and who speaks."""
    return rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """For work of this process's own, with files of its own: as if there were no other."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Those of some items that fall to this process: every `count`-th, from `rank`."""
    return items[rank() :: count()]


def part(items: Sequence[Item], of: str) -> Sequence[Item]:
    """The items of one worker of many, such as `3/16`, who know nothing of each other.

    Raises:
        InputError: it is not like that.
    """
    number, _, count = of.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--part is '{of}': must be like 3/16, from 1/16 to 16/16")
    return items[int(number) - 1 :: int(count)]


def in_turn(items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Work on items, a thread on one of them at a time; all processes see all results, in order.

    No more results are held than there are threads in all processes.
    """
    at_once = count() * threads.count()
    for start in range(0, len(items), at_once):
        together = items[start : start + at_once]
        mine = list(threads.in_parallel(work, share(together)))
        theirs = everyone(mine)
        results = (theirs[i % count()][i // count()] for i in range(len(together)))
        yield from zip(together, results, strict=True)


def join() -> None:
    """Meet the other processes, over NCCL where there is CUDA, else over gloo."""
    import atexit

    import torch

    if count() > 1 and not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
        atexit.register(torch.distributed.destroy_process_group)


def mean_(tensor):
    """Replace a tensor by its mean over all processes, and return it."""
    return tensor if count() == 1 else sum_(tensor).div_(count())


def sum_(tensor):
    """Replace a tensor by its sum over all processes, and return it."""
    import torch

    if count() > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def joined(tensor):
    """What each process has of a batch, (b, ...) by `share`, put together again in its order."""
    import torch

    if count() == 1:
        return tensor
    theirs = [torch.empty_like(tensor) for _ in range(count())]
    torch.distributed.all_gather(theirs, tensor.contiguous())
    return torch.stack(theirs, 1).flatten(0, 1)


def everyone(mine) -> list:
    """What every process holds, in the order of their numbers; small things, on the CPU."""
    import torch

    if count() == 1:
        return [mine]
    theirs = [None] * count()
    torch.distributed.all_gather_object(theirs, mine)
    return theirs


def wait() -> None:
    """Go on when all processes have come here."""
    everyone(None)
