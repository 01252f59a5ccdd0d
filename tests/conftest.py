"""What all tests share: one thread, no network, a torchvision that can be imported."""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's; its idle threads spin, at anyone's cost

from rissole.pretrained import compat  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
compat.arm()


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A git clone of the project, tiny and reproduced once, and the seconds that took."""
    import tiny

    folder = tmp_path_factory.mktemp("clone")
    return folder, tiny.reproduce(folder)


BAD_INPUTS = set()


@pytest.fixture(scope="session")
def bad_inputs():
    """What the tests gave that cannot work, each once; their number is printed at the end."""
    return BAD_INPUTS


def pytest_terminal_summary(terminalreporter):
    if BAD_INPUTS:
        terminalreporter.write_line(f"{len(BAD_INPUTS)} distinct bad inputs met with an answer")
