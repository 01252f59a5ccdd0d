"""What a run of the pipeline will take, from two small ones of different size.

Each call of a stage is taken to cost a fixed part (starting Python, reading weights) and one that
grows with what it works through; two rehearsals tell them apart. Of the stages that run for each
row, one row is rehearsed and stands for all: the first that retrieves.
"""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

from rissole.ground import files
from rissole.ground.config import Settings
from rissole.speed import rehearsal
from rissole.speed.rehearsal import Cost

import yaml

PROJECT = Path(__file__).parents[3]
PATHS = {  # keys of params.yaml that hold paths, by section
    "data": ("root", "classes"),
    "vqgan": ("lpips_weights",),
    "encoder": ("weights",),
    "judge": ("inception",),
}
SHARED = {  # stages that several devices share
    "train_vqgan",
    "encode_latents",
    "embed_images",
    "train_ldm",
    "sample_images",
    "extract_features",
}
JUDGED = 10_000  # val images at most, as `build_reference` has it
VALIDATED = 256  # val images that a validation loss is taken over, as `denoiser.training` has it
# Stages whose memory is that of a batch, and of images in their smallest form.
BATCHES = {"train_vqgan", "train_ldm", "sample_images", "extract_features", "show_samples"}
COPIES = 2  # of what lies in data/: DVC's cache holds another
TRAINING = 3  # times the FLOP of a forward pass
PATIENCE = 40  # seconds for a training that is rehearsed


@dataclass(frozen=True)
class Size:
    """How much a run works through.

    Attributes:
        images: read, of both splits.
        first_stage, denoiser: steps of the trainings.
        validations: of the denoiser.
        drawn: images of a row.
        steps: of the sampler.
    """

    images: int
    first_stage: int
    denoiser: int
    validations: int
    drawn: int
    steps: int


@dataclass(frozen=True)
class Estimate:
    """What a stage will take.

    Attributes:
        calls: how often it runs, once for each row, say.
        seconds: of all of them.
        mb: the peak of one.
    """

    calls: int
    seconds: float
    mb: float


@dataclass(frozen=True)
class Rehearsal:
    """A small run: its size, what a call of each stage took, what it left, and its scores' floor.

    Attributes:
        size: of it.
        costs: by stage.
        worked: seconds of them without those of starting, of stages that measure it.
        left: bytes, by folder of data/.
        floor: the Frechet distance of as many true images as a row draws, by name of the score.
    """

    size: Size
    costs: dict[str, Cost]
    worked: dict[str, float]
    left: dict[str, int]
    floor: dict[str, float]


def whole(settings: Settings, images: int) -> Size:
    """What the run of some settings works through, with so many images at hand."""
    ldm, sample = settings.ldm, settings.sample
    return Size(
        images, settings.vqgan.steps, ldm.steps, ldm.validations, sample.images, sample.steps
    )


def first_size(settings: Settings, of: Size) -> Size:
    """The first rehearsal of a run: enough images for the neighbours of each."""
    k = max((settings.retrieval(name).k for name in settings.retrievals), default=0)
    enough = round(2 * k / (1 - settings.data.validation))
    return _least(of, Size(max(250, enough), 5, 5, 1, 25, _steps(settings)[0]))


def second_size(settings: Settings, of: Size, first: "Rehearsal") -> Size:
    """The second: a whole batch of drawn images, and as many steps as there is patience for."""

    def steps(stage: str, before: int) -> int:
        return max(2 * before, round(PATIENCE * before / first.costs[stage].seconds))

    drawn = max(100, settings.sample.batch)
    enough = round(1.2 * drawn / (1 - settings.data.validation))  # each needs a train image
    return _least(
        of,
        Size(
            images=max(4 * first.size.images, enough),
            first_stage=steps("train_vqgan", first.size.first_stage),
            denoiser=steps("train_ldm", first.size.denoiser),
            validations=1,
            drawn=drawn,
            steps=_steps(settings)[1],
        ),
    )


def _steps(settings: Settings) -> list[int]:
    """Numbers of steps that the sampler can take, from 2 on."""
    timesteps = settings.ldm.timesteps
    return [n for n in range(2, timesteps + 1) if timesteps % n == 0]


def _least(one: Size, other: Size) -> Size:
    return Size(*map(min, vars(one).values(), vars(other).values()))


def calls(settings: Settings) -> dict[str, list[list[str]]]:
    """The words that each stage is called with, call by call, in running order."""
    rows, once = [[name] for name in settings.rows], [[]]
    return {
        "split_data": once,
        "train_vqgan": once,
        "encode_latents": once,
        "embed_images": once,
        "build_index": once,
        "retrieve_neighbours": [[name] for name in settings.retrievals],
        "train_ldm": [[name] for name in settings.variants],
        "sample_images": rows,
        "build_reference": once,
        "score_controls": once,
        "extract_features": rows,
        "audit_samples": rows,
        "compute_fid": rows,
        "show_samples": rows,
        "judge_retrieval": once,
        "make_tables": once,
        "make_report": once,
    }


def rehearse(settings: Settings, params: dict, size: Size, folder: Path) -> Rehearsal:
    """Run each stage once, on a part of the images and a few steps.

    Args:
        settings: of the run.
        params: the content of params.yaml that they come from.
        size: what to work through instead.
        folder: an empty one.

    Raises:
        InputError: a stage fails, as it would in the run.
    """
    name = representative(settings)
    row = settings.rows[name]
    contexts = (row.context, settings.variants[row.variant].context)
    tables = (context.removeprefix("neighbours/") for context in contexts)
    tables = dict.fromkeys(["main", *tables])
    tables = [table for table in tables if table in settings.retrievals]
    kept = {"rows": [name], "variants": [row.variant], "retrievals": tables}
    (folder / "params.yaml").write_text(yaml.safe_dump(shortened(params, size, kept)))
    shutil.copy(PROJECT / "dvc.yaml", folder)  # which the report draws
    (folder / "metrics").mkdir()
    (folder / "metrics/claims.yaml").write_text("[]\n")
    words = {"retrieve_neighbours": tables, "train_ldm": [row.variant]}
    costs = {}
    for stage, every in calls(settings).items():
        for word in words.get(stage, [name]) if every[0] else [None]:
            costs[stage] = rehearsal.call(folder, stage, *([] if word is None else [word]))
    reference = files.read_json(folder / "metrics/reference.json")
    trained = files.read_json(folder / f"metrics/ldm/{row.variant}.json")["train_seconds"]
    return Rehearsal(
        size,
        costs,
        {"train_ldm": trained},
        {path.name: _bytes(path) for path in (folder / "data").iterdir()}
        | {"neighbours": _bytes(folder / "data/neighbours") // max(1, len(tables))},
        {name: of["floor"] for name, of in reference.items() if "floor_by_formula" in of},
    )


def representative(settings: Settings) -> str:
    """The row that stands for all: the first that retrieves, or the first at all."""
    rows = settings.rows
    return next((name for name, row in rows.items() if row.context != "latents"), next(iter(rows)))


def shortened(params: dict, size: Size, kept: dict[str, list[str]]) -> dict:
    """params.yaml for a rehearsal, its paths as they are seen from anywhere.

    Args:
        params: its content.
        size: of the rehearsal.
        kept: names of the entries that stay, by section.
    """
    params = copy.deepcopy(params)
    for section, names in kept.items():
        params[section] = {name: params[section][name] for name in names}
    preset = params["presets"][params["preset"]]
    data = (params.get("data") or {}) | (preset.get("data") or {})
    unreadable = float(data["unreadable"])  # 1e-05, as DVC writes it, is a word to YAML
    changed = {
        "data": {
            "images": size.images,
            "unreadable": min(1.0, unreadable + 3 / size.images),  # chance has its due
        },
        "vqgan": {"steps": size.first_stage},
        "ldm": {"steps": size.denoiser, "validations": size.validations},
        "sample": {"images": size.drawn, "steps": size.steps},
    }
    for section, changes in changed.items():
        preset[section] = (preset.get(section) or {}) | changes
    for entries, own in (("variants", "ldm"), ("rows", "sample")):
        for entry in params[entries].values():
            entry[own] = {
                key: value
                for key, value in (entry.get(own) or {}).items()
                if key not in changed[own]
            }
    for section, keys in PATHS.items():
        for layer in (params.get(section) or {}, preset.get(section) or {}):
            for key in keys:
                if layer.get(key):
                    layer[key] = str(Path(layer[key]).absolute())
    return params


def work(settings: Settings, size: Size, stage: str) -> float:
    """What the seconds of a call of a stage grow with, in units of its own."""
    train = size.images * (1 - settings.data.validation)
    judged = min(size.images - train, JUDGED)
    validated = min(size.images - train, VALIDATED) / settings.ldm.batch / TRAINING
    return {
        "split_data": size.images,
        "train_vqgan": size.first_stage,
        "encode_latents": size.images,
        "embed_images": size.images,
        "build_index": size.images,
        "retrieve_neighbours": size.images * train,
        "train_ldm": size.denoiser + size.validations * validated,
        "sample_images": size.drawn * size.steps,
        "build_reference": 2 * judged + max(size.drawn, judged) + size.drawn,
        "score_controls": size.drawn,
        "extract_features": size.drawn,
        "audit_samples": size.drawn,  # and of its search for copies with the train images, too
        "compute_fid": size.drawn,
        "show_samples": min(size.drawn, settings.sample.batch) * size.steps,
        "judge_retrieval": size.images,
        "make_tables": 0,
        "make_report": 0,
    }[stage]


def extrapolate(
    settings: Settings, size: Size, first: Rehearsal, second: Rehearsal
) -> dict[str, Estimate]:
    """The whole run by stage.

    Args:
        settings: of the run.
        size: of the run.
        first: the smaller rehearsal.
        second: the larger one.
    """
    found = {}
    for stage, words in calls(settings).items():
        low, high = (of.costs[stage] for of in (first, second))
        worked = [work(settings, of, stage) for of in (first.size, second.size, size)]
        clocks = [first.worked.get(stage, low.seconds), second.worked.get(stage, high.seconds)]
        seconds = _on_the_line(*worked, *clocks) + high.seconds - clocks[1]
        images = [of.images for of in (first.size, second.size, size)]
        if stage in BATCHES:  # as large in the second rehearsal as in the run
            mb = high.mb + _bytes_held(settings, stage) * (size.images - second.size.images) / 1e6
        else:
            mb = _on_the_line(*images, low.mb, high.mb)
        found[stage] = Estimate(len(words), len(words) * seconds, mb)
    return found


def _bytes_held(settings: Settings, stage: str) -> int:
    """What a stage that works in batches holds of each image: its pixels, or its codes."""
    side = settings.data.size
    if stage == "train_vqgan":
        return 3 * side**2
    codes = (side // 2 ** len(settings.vqgan.widths)) ** 2
    return 0 if stage == "extract_features" else 4 * codes * (1 + settings.latents.mirrors)


def _on_the_line(low: float, high: float, at: float, y_low: float, y_high: float) -> float:
    """What stands at `at` on the line through two points that rises or is level."""
    rise = max(0.0, y_high - y_low) / (high - low) if high > low else 0.0
    return y_high + rise * (at - high)


def disk(settings: Settings, size: Size, second: Rehearsal) -> float:
    """Bytes that the run will hold on disk, the copies in DVC's cache counted."""
    images, drawn = size.images / second.size.images, size.drawn / second.size.drawn
    times = {
        "split": images,
        "latents": images,
        "embeddings": images,
        "index": images,
        "neighbours": images * len(settings.retrievals),
        "ldm": len(settings.variants),
        "samples": drawn * len(settings.rows),
        "features": drawn * len(settings.rows),
        "audit": drawn * len(settings.rows),
        "shown": len(settings.rows),
        "reference": images,
    }
    return COPIES * sum(times.get(name, 1) * left for name, left in second.left.items())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
