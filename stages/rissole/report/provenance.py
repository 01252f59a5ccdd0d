"""What made the page: settings, software, revision."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from rissole.core.config import Settings
from rissole.params import SECTIONS

import yaml

KNOBS = ("preset", "seed", "k", "blocks", "query", "exclude", "threads", "queries")
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "scann", "dvc")
CODE = ("stages", "params.yaml", "dvc.yaml", "requirements.txt", "constraints.txt")


def settings_text(settings: Settings) -> str:
    """All settings in force, the chosen preset laid over what presets share, as YAML."""
    content = {name: getattr(settings, name) for name in KNOBS}
    content |= {of.SECTION: settings.section(of).model_dump() for of in SECTIONS}
    for name in ("retrievals", "variants", "rows"):
        content[name] = settings.content[name]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def software() -> dict[str, str]:
    """What ran, by name: Python, packages, system, revision."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # scann has no wheels but for Linux
            continue
    found["system"] = f"{platform.system()}, {platform.machine()}"
    return found | {"revision": _revision()}


def _revision() -> str:
    """The commit that is checked out, and whether code or settings were changed since."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"{commit}, with changes" if changed else commit


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
