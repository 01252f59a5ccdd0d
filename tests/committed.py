"""Files as they were last committed, whatever a run has made of them since."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def committed(name: str) -> str:
    """The content of a file in the last commit."""
    words = ["git", "show", f"HEAD:{name}"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
