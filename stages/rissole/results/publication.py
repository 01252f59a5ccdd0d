"""Results on other images than the default ones, kept with what they were measured of and where."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rissole.core import files
from rissole.core.config import Settings
from rissole.denoiser.settings import find_variant
from rissole.drawing.settings import find_row
from rissole.harness.errors import InputError
from rissole.harness.run import address
from rissole.params import SECTIONS
from rissole.results import claims, measurements, pages, retrieval_page
from rissole.results.claims import Claim
from rissole.results.measurements import Results
from rissole.speed.machine import describe

INPUTS = ("data/split", "data/vqgan", "data/latents", "data/reference")
KNOBS = ("seed", "k", "blocks", "query", "exclude", "threads", "queries")
PLACES = {
    "root",
    "classes",
    "inception",
    "lpips_weights",
    "weights",
}  # on the disk of whoever ran it
PACKAGES = ("torch", "numpy", "diffusers", "scann", "faiss-cpu", "transformers", "pyarrow")


class Pipeline:
    """The stages as DVC knows them: which have a result that is current, and its digest."""

    def __init__(self):
        from dvc.repo import Repo

        with Repo() as repo:
            self._graph = repo.index.graph
            self._stages = {stage.addressing: stage for stage in repo.index.stages}
            self._changed = set(repo.status())
            self.commit = repo.scm.get_rev()

    def changed(self, name: str) -> list[str]:
        """The stages that `dvc repro` of a stage would run, itself among them."""
        import networkx

        stage = self._stages[name]
        needed = {stage, *networkx.descendants(self._graph, stage)}
        return sorted(self._changed & {of.addressing for of in needed})

    def digest(self, path: str) -> str:
        """The MD5 that DVC has of an out of data/."""
        outs = (out for stage in self._stages.values() for out in stage.outs)
        return next(out.hash_info.value for out in outs if out.def_path == path)


def collect(settings: Settings, metrics: Path, ablations: bool) -> dict:
    """Everything about the rows whose results are current.

    Args:
        settings: of the run.
        metrics: folder of what was measured.
        ablations: whether the rows are the ablations', each with its seeds, and not the main ones.

    Raises:
        InputError: a row, or what it is read by, is not current.
    """
    pipeline = Pipeline()
    of = settings.content["ablations"] if ablations else settings.content
    if ablations:
        names = [f"ablations/{entry}/{seed}" for entry in of["rows"] for seed in of["seeds"]]
        changed = {at for name in names for at in pipeline.changed(address("compute_fid", name))}
    else:
        names, changed = settings.names("rows"), pipeline.changed("make_tables")
    if changed:
        raise InputError(f"dvc.lock: {', '.join(sorted(changed))}: not current; run `dvc repro`")
    rows = {name: find_row(settings, name) for name in names}
    results = asdict(measurements.read(metrics, rows, files.read_json(metrics / "controls.json")))
    short = {name: name.removeprefix("ablations/") for name in names}
    for kind in ("fid", "audit", "ldm", "sampling"):
        results[kind] = {short[name]: found for name, found in results[kind].items()}
    return {
        "commit": pipeline.commit,
        "preset": settings.preset,
        "settings": {name: getattr(settings, name) for name in KNOBS}
        | {
            section.SECTION: settings.section(section).model_dump(exclude=PLACES)
            for section in SECTIONS
        },
        "machine": describe(),
        "versions": _versions(),
        "inputs": {path: pipeline.digest(path) for path in INPUTS},
        "rows": {
            short[name]: {
                "row": of.model_dump(),
                "variant": find_variant(settings, of.variant).model_dump(),
            }
            for name, of in rows.items()
        },
        "main": [*short.values()],
        "tables": of["tables"] if ablations else {},
        "before": measurements.read_before(metrics, rows),
        "results": results,
        "retrieval": files.read_json(metrics / "retrieval_quality.json"),
    }


def write(path: Path, content: dict) -> None:
    """Write what `collect` returned as JSON with a line for each row, so that a diff shows rows."""
    files.write_text(path, _lines(content, 3) + "\n")


def _lines(content: object, depth: int, indent: int = 0) -> str:
    if not depth or not isinstance(content, dict) or not content:
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
    inside = (
        f"{' ' * indent} {json.dumps(key)}: {_lines(value, depth - 1, indent + 1)}"
        for key, value in content.items()
    )
    return "{\n" + ",\n".join(inside) + f"\n{' ' * indent}}}"


def page(name: str, content: dict, asserted: list[Claim]) -> str:
    """The published page.

    Args:
        name: of the publication.
        content: what `collect` returned.
        asserted: the claims; those about rows that are not here are left out.
    """
    results = Results(**content["results"])
    known = measurements.numbers(results)
    asserted = [of for of in asserted if claims.runs(known, of.row) and claims.runs(known, of.than)]
    main = [row for row in content["main"] if row in results.fid]
    parts = [
        _about(name, content) + "\n",
        pages.scores_page(results.some(main), content["before"]),
    ]
    if content["tables"]:
        variants = {row: of["variant"] for row, of in content["rows"].items()}
        parts.append(
            pages.ablations_page(
                results, content["tables"], content["before"]["neighbours"], variants
            )
        )
    if asserted:
        parts.append(pages.claims_page(known, asserted))
    if "retrieval" in content:  # which older publications did not judge
        parts.append(retrieval_page.page(content["retrieval"], results))
    return "\n".join(parts)


def _about(name: str, content: dict) -> str:
    """What was measured, and where."""
    machine, ldm = content["machine"], content["results"]["ldm"]
    images = content["results"]["reference"]["images"]
    trained = {of["row"]["variant"]: ldm[row] for row, of in content["rows"].items()}
    seconds = sum(of["train_seconds"] for of in trained.values())
    seeds = sorted({of["variant"]["seed"] for of in content["rows"].values()})
    left_out = f" Not run: {', '.join(content['left_out'])}." if content.get("left_out") else ""
    note = f" {content['note']}" if "note" in content else ""
    return (
        f"`{name}`, by commit {content['commit'][:7]}: preset `{content['preset']}`,"
        f" {images['val']:,} val images, of which {images['val_apart']:,} share neither group nor"
        f" codes with a train image. {len(trained)} denoisers, {seconds:,.0f} seconds of training"
        f" in all, seeds {' and '.join(map(str, seeds))}; {len(ldm)} rows. Run on"
        f" {machine['device']}, {content['settings']['threads']} threads, {machine['memory_gb']}"
        f" GB, under {machine['system']} with torch {content['versions']['torch']}.{left_out}{note}"
        " results.json holds every figure, the settings, and the digests of what the rows share."
        " None of the images is here."
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # ScaNN has no wheel for every machine
            continue
    return found
