"""torchvision beside a torch built without CUDA: `arm` it before whatever imports torchvision.

The package index's torchvision links CUDA's libraries. Where they are missing its compiled
operators cannot load, and then `import torchvision` fails at the two operators whose shapes it
registers; with it fail torch-fidelity and the models of diffusers. Declaring the two is enough,
for nothing here calls them.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

OPERATORS = ("nms", "qnms")
_declared = []  # torch takes a declaration back with the object that made it


@cache
def arm() -> str:
    """Make `import torchvision` work; after the first call nothing more happens.

    Returns:
        "native" where torchvision's own operators load, "declared" where their names had to be
        declared, "absent" where there is no torchvision.
    """
    import torch

    package = find_spec("torchvision")
    if package is None:
        return "absent"
    try:
        torch.ops.load_library(str(Path(package.origin).with_name("_C.so")))
        return "native"
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in OPERATORS:
            library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        return "declared"
