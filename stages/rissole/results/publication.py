"""Results on images that are not the default ones: kept with what they were measured of, and where.

A row belongs to them if DVC's locks say so: it was scored against the present reference, and its
files are those that its stages wrote.
"""

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from rissole.ground import files
from rissole.ground.config import Settings
from rissole.ground.errors import InputError
from rissole.ground.schema import SECTIONS
from rissole.results import claims, measurements, pages
from rissole.results.claims import Claim
from rissole.results.measurements import Results

METRICS, REFERENCE = Path("metrics"), "data/reference"
INPUTS = {
    "split_data": "data/split",
    "train_vqgan": "data/vqgan",
    "encode_latents": "data/latents",
    "build_reference": REFERENCE,
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast
KINDS = {"compute_fid": "fid", "audit_samples": "audit", "sample_images": "sampling"}
PACKAGES = ("torch", "numpy", "diffusers", "scann", "pyarrow")


class Locks:
    """What DVC recorded of the last run of each stage."""

    def __init__(self):
        paths = {"": Path("dvc.lock"), "ablations": Path("stages/ablations/dvc.lock")}
        self._stages = {
            family: yaml.load(path.read_text("utf-8"), LOADER)["stages"] if path.exists() else {}
            for family, path in paths.items()
        }

    def recorded(self, stage: str, row: str | None = None) -> dict[str, str]:
        """The MD5 of every file that a stage read or wrote, by path; none if it never ran."""
        family, _, name = (row or "").rpartition("/")
        entry = self._stages[family].get(f"{stage}@{name}" if row else stage, {})
        return {of["path"]: of["md5"] for of in entry.get("deps", []) + entry.get("outs", [])}


def collect(settings: Settings) -> dict:
    """Everything about the rows that were measured on the images at hand.

    Raises:
        InputError: a row of params.yaml was not, or a file is not as its stage wrote it.
    """
    locks = Locks()
    reference = locks.recorded("build_reference").get(REFERENCE)
    tables = {
        title: names
        for title, names in settings.ablations.tables.items()
        if all(_scored(locks, name) == reference for name in names)
    }
    missing = [name for name in settings.rows if _scored(locks, name) != reference]
    if missing or reference is None:
        raise InputError(f"dvc.lock: row {(missing or ['?'])[0]} has no score yet; run `dvc repro`")
    names = dict.fromkeys([*settings.rows, *(name for of in tables.values() for name in of)])
    rows = {name: settings.row(name) for name in names}
    for name in rows:
        _check(locks, name)
    controls = files.read_json(METRICS / "controls.json")
    results = measurements.read(rows, files.read_json(METRICS / "reference.json"), controls)
    contexts = dict.fromkeys(of.context for of in rows.values() if of.context != "latents")
    looked_up = [context.removeprefix("neighbours/") for context in contexts]
    return {
        "preset": settings.preset,
        "settings": {
            name: getattr(settings, name).model_dump(exclude={"root"}) for name in SECTIONS
        },
        "machine": _machine(settings.threads),
        "versions": {"python": platform.python_version()} | {of: version(of) for of in PACKAGES},
        "inputs": {path: locks.recorded(stage)[path] for stage, path in INPUTS.items()},
        "before": measurements.read_before(looked_up),
        "rows": {
            name: {
                "training_seed": settings.variant(of.variant).seed,
                "sampling_seed": settings.variant(of.variant).seed if of.seed is None else of.seed,
                "weights": locks.recorded("sample_images", name)[f"data/ldm/{of.variant}"],
                "samples": locks.recorded("sample_images", name)[f"data/samples/{name}"],
            }
            for name, of in rows.items()
        },
        "main": [*settings.rows],
        "tables": tables,
        "left_out": [title for title in settings.ablations.tables if title not in tables],
        "repeats": settings.repeats(rows),
        "results": asdict(results),
    }


def page(name: str, content: dict, asserted: list[Claim], of_ablations: list[Claim]) -> str:
    """The published page.

    Args:
        name: of the publication.
        content: what `collect` returned.
        asserted: the claims about the rows of params.yaml.
        of_ablations: those about the ablations; those about rows that are not here are left out.
    """
    results, repeats = Results(**content["results"]), content["repeats"]
    here = [of for of in of_ablations if {of.row, of.than} <= content["rows"].keys()]
    main = [group for group in repeats if set(group) <= set(content["main"])]
    return "\n".join(
        [
            _about(name, content) + "\n",
            pages.scores_page(results.some(content["main"]), asserted, main, content["before"]),
            pages.ablations_page(results, content["tables"], here, repeats),
        ]
    )


def _about(name: str, content: dict) -> str:
    """What was measured, and where."""
    machine, ldm = content["machine"], content["results"]["ldm"]
    val = content["results"]["reference"]["images"]["val"]
    training = sum(of["train_seconds"] for of in ldm.values())
    seeds = sorted({of["training_seed"] for of in content["rows"].values()})
    left_out = f" Not run: {', '.join(content['left_out'])}." if content["left_out"] else ""
    return (
        f"`{name}`: preset `{content['preset']}`, scored against {val:,} val images. Measured on"
        f" {machine['device']}, {machine['threads']} threads, {machine['memory_gb']} GB, under"
        f" {machine['system']} with torch {content['versions']['torch']}; {len(ldm)} rows,"
        f" {training:,.0f} seconds of training, seeds {' and '.join(map(str, seeds))}.{left_out}"
        " results.json holds all figures, the settings, and the digests of images, VQ-GAN, latents,"
        " weights and samples. None of the images is here."
    )


def claimed() -> tuple[list[Claim], list[Claim]]:
    """The claims about the rows of params.yaml, and those about the ablations."""
    folders = METRICS, METRICS / "ablations"
    return tuple(claims.read(folder / "claims.yaml") for folder in folders)


def _scored(locks: Locks, row: str) -> str | None:
    """The reference that a row was last scored against."""
    return locks.recorded("compute_fid", row).get(REFERENCE)


def _check(locks: Locks, row: str) -> None:
    for stage, kind in KINDS.items():
        path, recorded = files.measured(kind, row), locks.recorded(stage, row)
        if hashlib.md5(path.read_bytes()).hexdigest() != recorded.get(str(path)):
            raise InputError(
                f"{path}: not as {stage} wrote it, or dvc.lock is older; run `dvc repro`"
            )


def _machine(threads: int) -> dict:
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else _processor()
    memory = Path("/proc/meminfo").read_text().splitlines()[0]  # the total, in kB
    return {
        "device": device,
        "threads": threads,
        "memory_gb": round(int(memory.split()[1]) / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
