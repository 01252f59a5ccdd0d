"""Every module can be imported first, on any machine."""

import subprocess
import sys
from pathlib import Path

from rissole.pretrained import compat

import pytest

STAGES = Path(__file__).parents[1] / "stages"
MODULES = [
    ".".join(path.relative_to(STAGES).with_suffix("").parts)
    for pattern in ("rissole/**/[!_]*.py", "*.py")
    for path in sorted(STAGES.glob(pattern))
]

IMPORT_EACH_AFRESH = """
import os, sys, traceback
from importlib import import_module
import torch, pandas, pyarrow.parquet  # shared by the children; none of them needs torchvision
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        status = 0
        try:
            import_module(name)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(f"cannot be imported first: {failed}" if failed else 0)
"""


@pytest.mark.slow
def test_each_module_can_be_the_first_to_be_imported():
    child = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH_AFRESH, *MODULES],
        env={"PYTHONPATH": str(STAGES), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr


def test_torchvision_works_once_armed():
    assert compat.arm() in ("native", "declared")
    import torch
    from torchvision.transforms.v2.functional import horizontal_flip

    x = torch.arange(4).reshape(1, 2, 2)
    assert horizontal_flip(x).tolist() == [[[1, 0], [3, 2]]]


@pytest.mark.parametrize("package", ["torch_fidelity", "diffusers"])
def test_packages_that_need_torchvision_import_once_armed(package):
    __import__(package)
