"""The machine that something is measured on."""

import platform
from pathlib import Path

import torch


def describe(device: torch.device | None = None) -> dict:
    """Processor or CUDA device, memory and system.

    Args:
        device: that was measured on; None for that which the stages take here.
    """
    processors = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    memory = Path("/proc/meminfo").read_text().splitlines()[0]  # the total, in kB
    cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else ", ".join(sorted(processors)),
        "memory_gb": round(int(memory.split()[1]) / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
    }
