"""What all tests share: one thread, no network, a torchvision that can be imported."""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's; its idle threads spin, at anyone's cost

from rissole.pretrained import compat  # noqa: E402

import torch  # noqa: E402

torch.set_num_threads(1)
compat.arm()
