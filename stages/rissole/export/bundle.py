"""The folder of an exported model, written whole or not at all."""

import shutil
from importlib.metadata import version
from pathlib import Path

from rissole.denoiser import conditioning, denoiser
from rissole.drawing import drawing
from rissole.export import card, modules
from rissole.ground import command, config, files, schema
from rissole.ground.errors import InputError
from rissole.latent import latents
from rissole.latent.pixels import Pixels

PROJECT = Path(__file__).parents[3]
PIPELINE = Path(__file__).with_name("pipeline.py")
TRAVELS_AS = "rissole_pipeline.py"  # `pipeline` is what others call theirs
CHECKED_BY_NOTHING = ("README.md", "LICENSE", "requirements.txt", ".gitignore")  # free to edit


def write(folder: Path, row: str, settings: config.Settings) -> int:
    """Write a row's model.

    Args:
        folder: is made; an empty one may be there.
        row: drawn and scored.
        settings: of params.yaml.

    Returns:
        Its size in bytes.

    Raises:
        InputError: the folder holds something, or the row was not drawn or scored, or was drawn
            with other weights than are there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name another folder, or remove it")
    of = settings.row(row)
    measured = card.read_measured(row)
    _check_drawn(row, of, settings)
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made: {error.strerror}; name another folder"
        ) from None
    try:
        _write_parts(scratch, row, of, settings)
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
            scratch / "README.md", card.page(row, of, settings, measured, packages, size)
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


def _check_drawn(row: str, of: schema.Row, settings: config.Settings) -> None:
    """Refuse a row that was drawn, and so scored, by other weights or settings than are there."""
    path, sample = Path(f"data/samples/{row}/samples.parquet"), settings.row_sample(row)
    weights = files.digest(Path(f"data/ldm/{of.variant}/best.safetensors"))
    told = files.read_table(path, ["checkpoint", "seed", "sampler", "steps", "neighbours"])
    wanted = {"checkpoint": weights, "seed": _seed(of, settings)}
    wanted |= {"sampler": sample.sampler, "steps": sample.steps}
    other = [name for name, value in wanted.items() if told[name].unique().to_pylist() != [value]]
    if of.context != "latents":
        retrieval = settings.retrieval(of.context.removeprefix("neighbours/"))
        queries = files.read_table(Path("data", of.context, "queries.parquet"))
        widths = {len(near) for near in (*told["neighbours"].to_pylist(), queries["neighbours"][0])}
        other += ["k"] if widths != {retrieval.k} else []
        query = queries.schema.metadata[b"query"].decode()
        other += ["query"] if query != retrieval.query else []
    if other:
        again = command.address("compute_fid", row)
        raise InputError(
            f"{path}: drawn, and so scored, with another {' and another '.join(other)} than"
            f" data/ldm/{of.variant} and params.yaml have; run `dvc repro {again}`"
        )


def _write_parts(folder: Path, row: str, of: schema.Row, settings: config.Settings) -> None:
    """Write what is loaded: first stage, denoiser, scheduler, database, and the index of these."""
    weights = Path(f"data/ldm/{of.variant}/best.safetensors")
    for part in ("first_stage", "denoiser", "scheduler", "database"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(drawing.VQGAN, folder / "first_stage/vqgan.safetensors")
    shutil.copyfile(weights, folder / "denoiser/denoiser.safetensors")
    train = latents.read(drawing.LATENTS, "train")
    network = denoiser.load(weights, train)
    _write_database(folder / "database", of, network, train, settings)
    library = {"_diffusers_version": version("diffusers")}
    files.write_json(
        folder / "scheduler/scheduler_config.json",
        {"_class_name": "SchedulerPart"} | library | settings.row_sample(row).model_dump(),
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
        "checkpoint": files.digest(weights),
    }
    index = {name: ["rissole.export.parts", part] for name, part in parts.items()}
    files.write_json(
        folder / "model_index.json", {"_class_name": "RissolePipeline"} | library | index | about
    )


def _seed(of: schema.Row, settings: config.Settings) -> int:
    """That of the noise of a row."""
    return settings.variant(of.variant).seed if of.seed is None else of.seed


def _write_database(
    folder: Path,
    of: schema.Row,
    network: denoiser.Network,
    train: latents.Latents,
    settings: config.Settings,
) -> None:
    """Write what neighbours come from: codes, codebook, queries, and what else the row is told."""
    names = ["manifest.json", "codebook.safetensors"]
    parts = files.read_record(drawing.LATENTS / "manifest.json")["train"]
    for name in (*names, *(f"{part}.parquet" for part in parts)):
        shutil.copyfile(drawing.LATENTS / name, folder / name)
    context, table = Path("data") / of.context, None
    if network.row.neighbours != "none":
        table = settings.retrieval(of.context.removeprefix("neighbours/")).model_dump()
        shutil.copyfile(context / "queries.parquet", folder / "queries.parquet")
    if network.row.neighbours == "tokens":
        shutil.copyfile(context / "embeddings.parquet", folder / "embeddings.parquet")
    files.write_json(folder / "retrieval.json", {"table": table, "blocks": settings.blocks})
    told = conditioning.database(network.row, of.context, train)
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
