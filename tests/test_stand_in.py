"""The stages on a device that is not the CPU: a stand-in, as no other is at hand (stand_in.py)."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rissole.core import files
from tiny import ROWS, TABLES

import pytest

HERE = Path(__file__).parent
STAGES = [
    "train_vqgan",
    "encode_latents",
    "embed_images",
    "build_index",
    *(f"retrieve_neighbours {table}" for table in TABLES),
    "judge_retrieval",
    "build_reference",
    "score_controls",
    *(f"{stage} {row}" for stage in ("train_ldm", "sample_images", "compute_fid") for row in ROWS),
]


def stand_in(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    pipes = {"capture_output": True, "text": True}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, **pipes)


def last_loss(folder: Path) -> float:
    *_, last = csv.DictReader((folder / "metrics/loss/vqgan.csv").read_text().splitlines())
    return float(last["loss"])


@pytest.mark.slow
def test_every_stage_works_on_a_device_and_finds_what_it_finds_on_the_cpu(clone, tmp_path):
    folder, there = clone[0], tmp_path / "there"
    shutil.copytree(folder, there, ignore=shutil.ignore_patterns(".git", "cache", "data"))
    shutil.copytree(folder / "data/split", there / "data/split")
    done = stand_in(there, str(HERE / "stand_in.py"), *STAGES)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("stand_in: ")]
    assert len(said) == len(STAGES)
    assert all(int(line.split()[-1]) > 0 for line in said), said
    assert last_loss(there) == pytest.approx(last_loss(folder), rel=0.05)
    for row in ROWS:
        ldm, cpu = (files.read_json(of / f"metrics/ldm/{row}.json") for of in (there, folder))
        assert ldm["parameters_live"] == cpu["parameters_live"]
        assert ldm["validation_loss"] == pytest.approx(cpu["validation_loss"], rel=0.02)


MIXED = """
import numpy, torch
from stand_in import DEVICE, StandIn
with StandIn():
    here = torch.ones(3)
    there = here.to(DEVICE)
    assert (there * 2).sum().item() == 6 and there[[0, 1]].device == DEVICE
    for mixed in (
        "here + there",
        "torch.cat([here, there])",
        "there.numpy()",
        "numpy.asarray(there)",
        "here[there.long()]",
        "there[[0, 1]] = here[:2]",
        "torch.randn(3, device=DEVICE, generator=torch.Generator())",
    ):
        try:
            exec(mixed)
            print("allowed:", mixed)
        except (RuntimeError, TypeError):
            pass
"""


@pytest.mark.slow
def test_the_device_refuses_what_cuda_would(tmp_path):
    done = stand_in(tmp_path, "-c", MIXED)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
