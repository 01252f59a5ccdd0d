"""What a module of the project takes to run: the project's files, and the packages of others.

Read from the imports, those within functions among them.
"""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

STAGES = Path(__file__).parents[2]


def needed(root: Path) -> list[Path]:
    """A source file of stages/ and all that it imports, directly or not, `__init__.py` included."""
    found, waiting = set(), [root]
    while waiting:
        path = waiting.pop()
        found.add(path)
        named = [source for name in _names(ast.walk(_tree(path))) for source in _sources(name)]
        waiting += {*named} - found
    return sorted(found)


def requirements(paths: list[Path], pinned: Path) -> list[str]:
    """The packages that must be there for these files to be imported, as lines for pip.

    What only a function imports is left out: who calls it is told by it.

    Args:
        paths: source files.
        pinned: requirements.txt, whose versions are taken.
    """
    names = {name.partition(".")[0] for path in paths for name in _names(_tree(path).body)}
    names -= {*sys.stdlib_module_names, "rissole"}
    known = packages_distributions()
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", pinned.read_text("utf-8"), re.M))
    packages = sorted({known[name][0].lower() for name in names})
    return [f"{name}=={pins.get(name) or version(name)}" for name in packages]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _names(nodes) -> Iterator[str]:
    """The full names that statements import; of `from a import b`, a and a.b."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _sources(name: str) -> Iterator[Path]:
    """The files of stages/ that an import of a name runs."""
    path = STAGES.joinpath(*name.split("."))
    if path.with_suffix(".py").exists():
        yield path.with_suffix(".py")
    for folder in (path, *path.parents):
        if (folder / "__init__.py").exists():
            yield folder / "__init__.py"
