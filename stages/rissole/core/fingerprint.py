"""Fingerprints: of what something is made, as one digest, and which files are made of it.

Settings, inputs and a version number beside the code that makes it are in a fingerprint; the text
of the code is not. The notes lie in checkpoints/, outside the outputs.
"""

import hashlib
import json
from pathlib import Path

from rissole.core import files
from rissole.harness.checkpoints import folder
from rissole.harness.errors import InputError


def of(*inputs: Path, **settings: object) -> str:
    """SHA-256 over files and settings (JSON values), of which one should be a `version`."""
    content = {"files": [files.digest(path) for path in inputs]} | settings
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def note(stage: str, path: Path, made_of: str) -> None:
    """Note what a file or folder of a stage is made of."""
    content = {"made_of": made_of, "sha256": digest(path)}
    files.write_json(folder(stage) / f"{path.name}.json", content)


def is_noted(stage: str, path: Path, made_of: str) -> bool:
    """Whether a file or folder is there, untouched, and noted to be made of that."""
    try:
        content = files.read_json(folder(stage) / f"{path.name}.json")
    except InputError:
        return False
    return path.exists() and content == {"made_of": made_of, "sha256": digest(path)}


def check(path: Path, said: str | None, wanted: str, what: str) -> None:
    """Refuse what is not made of what is here.

    Args:
        path: of it.
        said: what it is made of.
        wanted: what is here.
        what: was made of it, in words.

    Raises:
        InputError: it is made of something else.
    """
    if said != wanted:
        raise InputError(f"{path}: {what}; run `dvc repro`")


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder."""
    if path.is_file():
        return files.digest(path)
    every = (file for file in path.rglob("*") if file.is_file())
    digests = {str(file.relative_to(path)): files.digest(file) for file in every}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
