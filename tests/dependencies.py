"""The code that each stage of a dvc.yaml depends on: its script and what that imports.

What `harness` is for cannot change a number, as torch is no dependency either, `params` only
refuses, and `preview` draws what nothing reads: they are left out, and so is what they alone
import. `python tests/dependencies.py` writes the lists into dvc.yaml, and test_wiring.py holds them
against the imports; with files as words it counts the stages that an edit of these makes stale.
"""

import ast
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
STAGES = ROOT / "stages"
PIPELINES = [ROOT / "dvc.yaml", STAGES / "ablations/dvc.yaml", ROOT / "metrics/published/dvc.yaml"]


def imports(path: Path) -> set[Path]:
    """The project's files that one file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        files = [STAGES.joinpath(*name.split(".")).with_suffix(".py") for name in names]
        found |= {file for file in files if file.exists()}
    return found


def changes_no_number(path: Path) -> bool:
    """Whether a file is the harness's, the check of all settings, or the preview."""
    beside = (STAGES / "rissole/params.py", STAGES / "rissole/preview.py")
    return path.parent.name == "harness" or path in beside


def reached(path: Path) -> set[Path]:
    """A script and every project file that it imports, directly or not, less the harness."""
    found, todo = set(), [path]
    while todo:
        found.add(path := todo.pop())
        todo += [used for used in imports(path) - found if not changes_no_number(used)]
    return found


def code(stage: str) -> list[str]:
    """What a stage must list, its script first; a package that it reaches all of, as one."""
    script = STAGES / f"{stage}.py"
    files = reached(script) - {script}
    packages = {path.parent for path in files}
    whole = {package for package in packages if set(package.glob("[!_]*.py")) <= files}
    listed = {path.parent if path.parent in whole else path for path in files}
    return [str(path.relative_to(ROOT)) for path in [script, *sorted(listed)]]


def declared(stage: dict) -> list[str]:
    """The code that a stage of a dvc.yaml lists."""
    return [dep for dep in stage.get("do", stage)["deps"] if str(dep).startswith("stages/")]


def stale(paths: list[str]) -> dict[str, int]:
    """How many stages list some files, each entry of a foreach counted, by the dvc.yaml."""
    from dvc.repo import Repo

    found = {}
    with Repo(ROOT) as repo:
        for stage in repo.index.stages:
            deps = [Path(dep.def_path) for dep in stage.deps if not hasattr(dep, "params")]
            if any(Path(path).is_relative_to(dep) for path in paths for dep in deps):
                file = stage.path_in_repo
                found[file] = found.get(file, 0) + 1
    return found


def write() -> None:
    """Write the lists into all pipelines."""
    yaml = YAML()
    yaml.width = 4096
    for pipeline in PIPELINES:
        content = yaml.load(pipeline.read_text())
        for name, stage in content["stages"].items():
            deps = stage.get("do", stage)["deps"]
            data = [dep for dep in deps if not str(dep).startswith("stages/")]
            deps[:] = [*code(name), *data]
        with pipeline.open("w") as file:
            yaml.dump(content, file)


if __name__ == "__main__":
    print(stale(sys.argv[1:])) if sys.argv[1:] else write()
