"""What decides the last bits of a result: device, threads, precision, seeds."""

import os
from contextlib import AbstractContextManager

from rissole.core import memory, processes, threads
from rissole.harness.errors import InputError


def set_up(count: int):
    """Meet the other processes, and choose the device.

    That is CUDA where there is any, each process of a machine with a device of its own, else the
    CPU with `count` threads. Their number is a parameter because sums change their last bits with
    it.

    Raises:
        InputError: there are more processes on this machine than CUDA devices.
    """
    import torch

    torch.set_num_threads(count)
    memory.keep_freed()
    if not torch.cuda.is_available():
        threads.start(count)
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
