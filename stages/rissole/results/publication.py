"""Results on other images than the default ones, kept with what they were measured of and where."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rissole.ground import command, files
from rissole.ground.config import Settings
from rissole.ground.errors import InputError
from rissole.ground.schema import SECTIONS, Variant
from rissole.results import measurements, pages, retrieval_page
from rissole.results.claims import Claim
from rissole.results.measurements import Results
from rissole.speed.machine import describe

METRICS = Path("metrics")
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


def collect(settings: Settings) -> dict:
    """Everything about the rows whose results are current.

    Raises:
        InputError: a row of params.yaml, or what it is read by, is not.
    """
    pipeline = Pipeline()
    changed = pipeline.changed("make_tables")
    if changed:
        raise InputError(f"dvc.lock: {', '.join(changed)}: not current; run `dvc repro`")
    tables = {
        title: names
        for title, names in settings.ablations.tables.items()
        if not any(pipeline.changed(command.address("compute_fid", name)) for name in names)
    }
    names = dict.fromkeys([*settings.rows, *(name for of in tables.values() for name in of)])
    rows = {name: settings.row(name) for name in names}
    controls = files.read_json(METRICS / "controls.json")
    results = measurements.read(rows, files.read_json(METRICS / "reference.json"), controls)
    return {
        "preset": settings.preset,
        "settings": {name: getattr(settings, name) for name in KNOBS}
        | {name: getattr(settings, name).model_dump(exclude=PLACES) for name in SECTIONS},
        "machine": describe(),
        "versions": _versions(),
        "inputs": {path: pipeline.digest(path) for path in INPUTS},
        "rows": {
            name: {
                "row": of.model_dump(),
                "variant": settings.variant(of.variant).model_dump(),
                "weights": pipeline.digest(f"data/ldm/{of.variant}"),
                "samples": pipeline.digest(f"data/samples/{name}"),
            }
            for name, of in rows.items()
        },
        "main": [*settings.rows],
        "tables": tables,
        "left_out": [title for title in settings.ablations.tables if title not in tables],
        "repeats": settings.repeats(rows),
        "redraws": settings.redraws(rows),
        "before": measurements.read_before(rows),
        "results": asdict(results),
        "retrieval": files.read_json(METRICS / "retrieval_quality.json"),
    }


def page(name: str, content: dict, asserted: list[Claim], of_ablations: list[Claim]) -> str:
    """The published page.

    Args:
        name: of the publication.
        content: what `collect` returned.
        asserted: the claims about the rows of params.yaml.
        of_ablations: those about the ablations. Claims about rows that are not here are left out.
    """
    results, repeats = Results(**content["results"]), content["repeats"]
    rows = content["rows"].keys() | results.controls.keys()
    asserted, of_ablations = (
        [of for of in claims if {of.row, of.than} <= rows] for claims in (asserted, of_ablations)
    )
    main = [group for group in repeats if set(group) <= set(content["main"])]
    parts = [
        _about(name, content) + "\n",
        pages.scores_page(results.some(content["main"]), asserted, main, content["before"]),
    ]
    if content["tables"]:
        neighbours = content["before"]["neighbours"]
        variants = {
            name: Variant.model_validate(of["variant"]) for name, of in content["rows"].items()
        }
        parts.append(
            pages.ablations_page(
                results,
                content["tables"],
                of_ablations,
                repeats,
                content["redraws"],
                neighbours,
                variants,
            )
        )
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
    left_out = f" Not run: {', '.join(content['left_out'])}." if content["left_out"] else ""
    return (
        f"`{name}`: preset `{content['preset']}`, {images['val']:,} val images, of which"
        f" {images['val_apart']:,} share neither group nor codes with a train image."
        f" {len(trained)} denoisers, {seconds:,.0f} seconds of training in all, seeds"
        f" {' and '.join(map(str, seeds))}; {len(ldm)} rows. Run on {machine['device']},"
        f" {content['settings']['threads']} threads, {machine['memory_gb']} GB, under"
        f" {machine['system']} with torch {content['versions']['torch']}.{left_out} results.json"
        " holds every figure, the settings, and the digests of images, VQ-GAN, latents, weights and"
        " samples. None of the images is here."
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # ScaNN has no wheel for every machine
            continue
    return found
