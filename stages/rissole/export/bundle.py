"""The folder of an exported model, written whole or not at all."""

import shutil
from importlib.metadata import version
from pathlib import Path

from rissole.core import config, files
from rissole.denoiser import conditioning, denoiser
from rissole.denoiser.settings import find_variant
from rissole.drawing.drawing import Paths
from rissole.drawing.settings import Row, find_row, row_sample
from rissole.export import card, modules
from rissole.harness.errors import InputError
from rissole.harness.run import address
from rissole.latent import latents
from rissole.latent.pixels import Pixels
from rissole.retrieval.settings import find_retrieval

PROJECT = Path(__file__).parents[3]
PIPELINE = Path(__file__).with_name("pipeline.py")
TRAVELS_AS = "rissole_pipeline.py"  # `pipeline` is what others call theirs
CHECKED_BY_NOTHING = ("README.md", "LICENSE", "requirements.txt", ".gitignore")  # free to edit


def write(folder: Path, row: str, settings: config.Settings, data: Path, metrics: Path) -> int:
    """Write a row's model.

    Args:
        folder: is made; an empty one may be there.
        row: drawn and scored.
        settings: of params.yaml.
        data: folder of what the stages made.
        metrics: folder of what they measured.

    Returns:
        Its size in bytes.

    Raises:
        InputError: the folder holds something, or the row was not drawn or scored, or was drawn
            with other weights than are there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name another folder, or remove it")
    of = find_row(settings, row)
    paths, samples = Paths.of(of, data), data / "samples" / row / "samples.parquet"
    measured = card.read_measured(metrics, row)
    _check_drawn(row, of, settings, paths, samples)
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}; name another folder"
        ) from None
    try:
        _write_parts(scratch, row, of, settings, paths)
        packages = _write_code(scratch)
        files.write_text(scratch / ".gitignore", "__pycache__/\n")
        files.write_text(scratch / "requirements.txt", "\n".join([*packages, ""]))
        shutil.copyfile(PROJECT / "LICENSE", scratch / "LICENSE")
        written = [path for path in sorted(scratch.rglob("*")) if path.is_file()]
        names = [path.relative_to(scratch).as_posix() for path in written]
        digests = {name: files.digest(scratch / name) for name in names}
        digests = {name: of for name, of in digests.items() if name not in CHECKED_BY_NOTHING}
        files.write_record(scratch / "checksums.json", digests)
        size = sum(path.stat().st_size for path in written)
        files.write_text(
            scratch / "README.md",
            card.page(row, of, settings, measured, packages, size, data / "split/DATA_CARD.md"),
        )
        if folder.exists():
            folder.rmdir()
        scratch.replace(folder)
    except OSError as error:
        if not files.disk_is_full(error):
            raise
        raise files.no_room(folder, 0) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_drawn(row: str, of: Row, settings: config.Settings, paths: Paths, path: Path) -> None:
    """Refuse a row that was drawn, and so scored, by other weights or settings than are there."""
    sample, weights = row_sample(settings, row), files.digest(paths.denoiser)
    told = files.read_table(path, ["checkpoint", "seed", "sampler", "steps", "neighbours"])
    wanted = {"checkpoint": weights, "seed": _seed(of, settings)}
    wanted |= {"sampler": sample.sampler, "steps": sample.steps}
    other = [name for name, value in wanted.items() if told[name].unique().to_pylist() != [value]]
    if of.context != "latents":
        retrieval = find_retrieval(settings, of.context.removeprefix("neighbours/"))
        queries = files.read_table(paths.table / "queries.parquet")
        widths = {len(near) for near in (*told["neighbours"].to_pylist(), queries["neighbours"][0])}
        other += ["k"] if widths != {retrieval.k} else []
        query = queries.schema.metadata[b"query"].decode()
        other += ["query"] if query != retrieval.query else []
    if other:
        again = address("compute_fid", row)
        raise InputError(
            f"{path}: drawn, and so scored, with another {' and another '.join(other)} than"
            f" {paths.denoiser} and params.yaml have; run `dvc repro {again}`"
        )


def _write_parts(folder: Path, row: str, of: Row, settings: config.Settings, paths: Paths) -> None:
    """Write what is loaded: first stage, denoiser, scheduler, database, and the index of these."""
    for part in ("first_stage", "denoiser", "scheduler", "database"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(paths.vqgan, folder / "first_stage/vqgan.safetensors")
    shutil.copyfile(paths.denoiser, folder / "denoiser/denoiser.safetensors")
    train = latents.read(paths.latents, "train")
    network = denoiser.load(paths.denoiser, train)
    _write_database(folder / "database", of, network, train, settings, paths)
    library = {"_diffusers_version": version("diffusers")}
    files.write_json(
        folder / "scheduler/scheduler_config.json",
        {"_class_name": "SchedulerPart"} | library | row_sample(settings, row).model_dump(),
    )
    parts = {
        "database": "DatabasePart",
        "denoiser": "DenoiserPart",
        "first_stage": "FirstStagePart",
        "scheduler": "SchedulerPart",
    }
    about = {
        "row": row,
        "seed": _seed(of, settings),
        "checkpoint": files.digest(paths.denoiser),
    }
    index = {name: ["rissole.export.parts", part] for name, part in parts.items()}
    files.write_json(
        folder / "model_index.json", {"_class_name": "RissolePipeline"} | library | index | about
    )


def _seed(of: Row, settings: config.Settings) -> int:
    """That of the noise of a row."""
    return find_variant(settings, of.variant).seed if of.seed is None else of.seed


def _write_database(
    folder: Path,
    of: Row,
    network: denoiser.Network,
    train: latents.Latents,
    settings: config.Settings,
    paths: Paths,
) -> None:
    """Write what neighbours come from: codes, codebook, queries, and what else the row is told."""
    names = ["manifest.json", "codebook.safetensors"]
    parts = files.read_record(paths.latents / "manifest.json")["train"]
    for name in (*names, *(f"{part}.parquet" for part in parts)):
        shutil.copyfile(paths.latents / name, folder / name)
    table = None
    if network.row.neighbours != "none":
        table = find_retrieval(settings, of.context.removeprefix("neighbours/")).model_dump()
        shutil.copyfile(paths.table / "queries.parquet", folder / "queries.parquet")
    if network.row.neighbours == "tokens":
        shutil.copyfile(paths.table / "embeddings.parquet", folder / "embeddings.parquet")
    files.write_json(folder / "retrieval.json", {"table": table, "blocks": settings.blocks})
    told = conditioning.database(network.row, train, paths.table, paths.split)
    if isinstance(told, Pixels):
        levels = told.codes[:0] if table is None else told.codes  # of which only the shape is asked
        tensors = {"levels": levels, "mean": told.mean, "std": told.std}
        files.write_tensors(folder / "pictures.safetensors", tensors, {})


def _write_code(folder: Path) -> list[str]:
    """Write the pipeline and every module that it takes; the packages that they take."""
    sources = modules.needed(PIPELINE)
    for path in sources:
        name = TRAVELS_AS if path == PIPELINE else path.relative_to(modules.STAGES)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return modules.requirements(sources, PROJECT / "requirements.txt")
