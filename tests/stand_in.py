"""A device that is none: its tensors lie in ordinary memory, but refuse those of the CPU.

    python tests/stand_in.py "train_ldm rissole" "sample_images rissole"

calls the `main` of each of these stages in turn on it, in the present folder, and prints how many
operations it did. What a stage would mix up on a GPU (a tensor left behind, one handed to numpy, a
generator of the other device) is an error here too, on a machine without one, and all else gives
the CPU's numbers. It knows nothing of a GPU's kernels, precision, memory or speed.
"""

import importlib
import sys
from contextlib import nullcontext
from functools import wraps
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

backend_registration._setup_privateuseone_for_python_backend("stand_in")
DEVICE, CPU = torch.device("stand_in", 0), torch.device("cpu")
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
TAKES = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)


class Held(Tensor):
    """A tensor on the device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "Held":
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: Tensor):
        self.held = held

    @classmethod
    def __torch_function__(cls, call, types, args=(), kwargs=None):
        if call in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"a tensor on {DEVICE} has no numpy array: move it to the CPU first")
        if call is Tensor.tolist:
            return args[0].held.tolist()
        if call == Tensor.data.__set__:
            args[0].held = args[1].held
            return None
        if call in (Tensor.__getitem__, Tensor.__setitem__):  # lists would be moved past us
            args = args[0], tree_map(_listed, args[1], is_leaf=_is_list), *args[2:]
        with torch._C.DisableTorchFunctionSubclass():
            return call(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, call, types, args=(), kwargs=None):
        return _called(call, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """While it is entered, `DEVICE` can be asked for; it counts the operations there."""

    operations = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.operations += any(isinstance(of, Held) for of in tree_leaves(args))
        return _called(call, args, kwargs or {})


def _called(call, args, kwargs):
    """What an operation gives, on the device that it belongs to.

    Raises:
        RuntimeError: tensors of both devices are in it, and on CUDA it would not allow that.
    """
    tensors = [of for of in tree_leaves((args, kwargs)) if isinstance(of, Tensor)]
    held = [of for of in tensors if isinstance(of, Held)]
    if call in MOVES or call in TAKES:  # these may: from one to the other, and rows of the CPU's
        there = isinstance(args[0], Held)
        if call in TAKES and not there and held:
            raise RuntimeError(f"{call}: of a tensor on the CPU, by tensors on {DEVICE}")
        if call in TAKES[1:] and args[2].dim() and isinstance(args[2], Held) != there:
            raise RuntimeError(f"{call}: the values are on the other device")
    else:
        there = bool(held)
        if there and any(of.dim() and not isinstance(of, Held) for of in tensors):
            raise RuntimeError(f"{call}: of tensors on the CPU and on {DEVICE}")
    if kwargs.get("device") is not None:
        there = kwargs["device"].type == DEVICE.type
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{call}: on {DEVICE} with a generator of the CPU")
    own = {id(of.held): of for of in held}  # what is changed in place stays who it is
    given = call(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    return tree_map(lambda of: own.get(id(of)) if id(of) in own else _outer(of, there), given)


def _is_list(index) -> bool:
    return isinstance(index, list)


def _listed(index):
    return torch.tensor(index) if _is_list(index) else index


def _inner(of):
    if isinstance(of, Held):
        return of.held
    return CPU if isinstance(of, torch.device) else of


def _outer(of, there: bool):
    return Held(of) if there and isinstance(of, Tensor) and not isinstance(of, Held) else of


def take_the_place() -> None:
    """Make the stages take the device for theirs, by what can be said of it before they run."""
    made, inference = torch.tensor, torch.no_grad

    @wraps(made)
    def tensor(*args, device=None, **kwargs):
        return made(*args, **kwargs).to(device or CPU)

    torch.tensor, torch.inference_mode = tensor, inference  # neither asks a mode
    torch.autocast = lambda *args, **kwargs: nullcontext()  # it knows real devices alone
    from rissole.auditing import coherence
    from rissole.core import files, numerics

    coherence.STEPS = 10  # its training alone would take as long as all else
    read = files.read_tensors

    @wraps(read)
    def read_tensors(*args, **kwargs):
        with _disable_current_modes():  # safetensors makes them of storages
            return read(*args, **kwargs)

    def set_up(count: int) -> torch.device:
        torch.set_num_threads(count)
        return DEVICE

    files.read_tensors, numerics.set_up = read_tensors, set_up


if __name__ == "__main__":
    sys.path.insert(0, str(Path("stages").resolve()))
    take_the_place()
    for stage, *words in map(str.split, sys.argv[1:]):
        with StandIn() as mode:
            importlib.import_module(stage).main(*words)
        print("stand_in:", stage, *words, mode.operations)
