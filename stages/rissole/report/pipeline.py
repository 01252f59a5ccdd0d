"""The pipeline as dvc.yaml has it: which stage waits for which, and how long each took."""

import re
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files, fingerprint
from rissole.harness.errors import InputError
from rissole.harness.run import slug

import yaml

SECONDS = fingerprint.folder("seconds")  # where stages note how long they took


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: as in dvc.yaml.
        about: what it does, in a sentence.
        runs: how often it runs, once for each row or table that it is written for.
        timed: of how many runs a time is known.
        seconds: of these together.
        after: the stages that it waits for, those left out that others of these wait for.
    """

    name: str
    about: str
    runs: int
    timed: int
    seconds: float
    after: list[str]


def read(pipeline: Path, params: dict, but: str) -> list[Stage]:
    """All stages in the order of dvc.yaml.

    Args:
        pipeline: dvc.yaml.
        params: content of params.yaml, which its `${...}` name.
        but: the stage whose time is not looked up, as it is running.

    Raises:
        InputError: the file is missing or no pipeline, or names what params.yaml has not got.
    """
    try:
        content = yaml.safe_load(pipeline.read_text("utf-8"))["stages"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{pipeline}: cannot be read ({error}); take it back from git") from None
    runs = {name: _runs(of, params) for name, of in content.items()}
    waits = {name: _waits(name, runs) for name in runs}
    stages = []
    for name, of in runs.items():
        known = [_seconds(run["cmd"]) for run in of if name != but]
        seconds = [time for time in known if time is not None]
        direct = [one for one in waits[name] if not _reaches(waits, waits[name] - {one}, one)]
        stages.append(
            Stage(
                name=name,
                about=content[name].get("do", content[name]).get("desc", ""),
                runs=len(of),
                timed=len(seconds),
                seconds=sum(seconds),
                after=sorted(direct, key=list(runs).index),
            )
        )
    return stages


def _runs(stage: dict, params: dict) -> list[dict]:
    """A stage as it is run: once, or for each entry of what it is written for."""
    scopes = [params]
    if "foreach" in stage:
        entries = _filled(stage["foreach"], params)
        named = entries.items() if isinstance(entries, dict) else ((of, of) for of in entries)
        scopes = [params | {"key": key, "item": item} for key, item in named]
        stage = stage["do"]
    return [
        {
            "cmd": _filled(stage["cmd"], scope),
            "deps": _paths(stage, ["deps"], scope),
            "outs": _paths(stage, ["outs", "metrics", "plots"], scope),
        }
        for scope in scopes
    ]


def _paths(stage: dict, lists: list[str], scope: dict) -> list[str]:
    entries = [entry for name in lists for entry in stage.get(name, [])]
    return [_filled(next(iter(of)) if isinstance(of, dict) else of, scope) for of in entries]


def _filled(text: str, scope: dict):
    """A string of dvc.yaml with what its `${a.b}` name; if it is only that, the very thing."""

    def value(path: str):
        found = scope
        for key in path.strip().split("."):
            try:
                found = found[key]
            except (KeyError, TypeError):
                raise InputError(
                    f"dvc.yaml: '{text}' names what is not in params.yaml; put it back"
                ) from None
        return found

    whole = re.fullmatch(r"\$\{([^}]+)\}", text)
    if whole:
        return value(whole[1])
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(value(found[1])), text)


def _overlap(one: str, other: str) -> bool:
    a, b = Path(one), Path(other)
    return a.is_relative_to(b) or b.is_relative_to(a)


def _waits(name: str, runs: dict[str, list[dict]]) -> set[str]:
    """The stages of which one reads what they write."""
    deps = {dep for run in runs[name] for dep in run["deps"]}
    outs = {other: {out for run in of for out in run["outs"]} for other, of in runs.items()}
    return {
        other
        for other, made in outs.items()
        if other != name and any(_overlap(dep, out) for dep in deps for out in made)
    }


def _reaches(waits: dict[str, set[str]], starts: set[str], goal: str) -> bool:
    """Whether one of some stages waits for another, directly or not."""
    todo, seen = set(starts), set[str]()
    while todo:
        seen.add(name := todo.pop())
        todo |= waits[name] - seen
    return goal in seen


def _seconds(command: str) -> float | None:
    """How long a command took when it last ran here, or None where that is not known."""
    _, script, *words = command.split()
    path = SECONDS / f"{slug(Path(script).name, words)}.json"
    return float(files.read_json(path)["seconds"]) if path.exists() else None
