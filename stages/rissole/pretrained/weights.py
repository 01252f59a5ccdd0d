"""Weights that others saved with torch: tensors alone are read from them, and no code is run."""

import hashlib
from pathlib import Path

from rissole.harness.errors import InputError

import torch


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name, on the CPU.

    Raises:
        InputError: it is broken, or holds anything but tensors, such as code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
            raise ValueError("it holds other things than tensors")
        return content
    except Exception as error:  # a broken file makes torch raise almost anything
        said = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(
            f"{path}: cannot be read as weights alone ({said}); fetch the file again from where"
            " its authors publish it"
        ) from None


def version(net: torch.nn.Module) -> str:
    """A digest of all weights, and the version of what computes with them."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().cpu().numpy().tobytes())
    return f"{digest.hexdigest()[:16]} torch {torch.__version__.partition('+')[0]}"
