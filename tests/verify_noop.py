"""Whether the working tree computes what a commit computes: before a `dvc commit` of changed code.

`python tests/verify_noop.py COMMIT` runs the tiny pipeline of both and compares every output, byte
for byte, but for those that hold seconds. Where all are equal, the stages whose code changed may be
committed as they are (`dvc commit -f STAGE`), in the same commit as the code: the last line of the
output is for its message.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from kill_loop import outputs
from tiny import ROOT

MAKE = "import sys; sys.path[0] = 'tests'; import tiny; tiny.reproduce(tiny.Path(sys.argv[1]))"


def made(tree: Path, folder: Path) -> dict[str, str]:
    """The digests of all outputs of the tiny pipeline of a checkout."""
    folder.mkdir()
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], cwd=tree, check=True)
    return outputs(folder / "dvc.lock")


def main(commit: str) -> None:
    """Compare the working tree with a commit."""
    with TemporaryDirectory() as scratch:
        before = Path(scratch, "before")
        subprocess.run(["git", "worktree", "add", "-q", before, commit], cwd=ROOT, check=True)
        try:
            old, new = made(before, Path(scratch, "old")), made(ROOT, Path(scratch, "new"))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    other = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    if other:
        sys.exit(f"not the same: {', '.join(other)}")
    print(f"verify_noop: {len(new)} outputs of the tiny pipeline equal those of {commit}")


if __name__ == "__main__":
    main(sys.argv[1])
