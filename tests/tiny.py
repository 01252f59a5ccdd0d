"""The project with a tiny preset, for tests that run its stages as a user runs them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import yaml
from dvc.utils.hydra import apply_overrides

ROOT = Path(__file__).parents[1]
OFFLINE_LOG = Path(mkdtemp()) / "attempts"  # to reach a network: tests/offline notes them
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT / "tests/offline"),
    "OFFLINE_LOG": str(OFFLINE_LOG),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "LC_ALL": "C.UTF-8",
    "DVC_SITE_CACHE_DIR": mkdtemp(),
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
TINY = {
    "k": 3,
    "threads": 1,
    "presets.quick.data.images": 80,
    "+presets.quick.data.size": 32,
    "presets.quick.vqgan.steps": 8,
    "+presets.quick.judge.size": 64,
    "presets.quick.ldm.widths": "[16,32]",
    "presets.quick.ldm.steps": 4,
    "presets.quick.ldm.batch": 4,
    "presets.quick.ldm.validations": 1,
    "presets.quick.sample.images": 12,
    "presets.quick.sample.steps": 2,
}
TABLES = ["main", "released"]  # the controls' and that row's
ROWS = ["no_rag", "released"]  # one without neighbours, one that reads k


def run(folder: Path, *words: str) -> str:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, text=True, **pipes)
    assert done.returncode == 0, done.stdout
    return done.stdout


def reproduce(folder: Path) -> float:
    """Make a git clone of the tree as it stands, its params tiny; the seconds of `dvc repro`."""
    tree = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").split("\n")
    for name in filter(None, tree):
        if not name.startswith("metrics/") and name != "dvc.lock" and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "stages/ablations")  # of rows that are left out
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    overrides = [f"{key}={value}" for key, value in TINY.items()]
    for section in ("variants", "rows"):
        overrides += [f"~{section}.{row}" for row in params[section].keys() - set(ROWS)]
    overrides += [f"~retrievals.{table}" for table in params["retrievals"].keys() - set(TABLES)]
    apply_overrides(folder / "params.yaml", overrides)
    run(folder, "git", "init", "-q")
    start = time.monotonic()
    (folder / "repro.log").write_text(run(folder, "dvc", "repro"))
    seconds = time.monotonic() - start
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "Reproduce")
    return seconds
