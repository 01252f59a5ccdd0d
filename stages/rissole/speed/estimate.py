"""What a run of the pipeline will take, from two small ones of different size.

Each call of a stage is taken to cost a fixed part (starting Python, reading weights) and one that
grows with what it works through; two rehearsals tell them apart. Of the stages that run for each
row, one row is rehearsed and stands for all: the first that retrieves.
"""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files
from rissole.core.config import Settings
from rissole.dataset.settings import Data
from rissole.denoiser.settings import LDM, find_variant
from rissole.drawing.settings import Sample, find_row
from rissole.first_stage.settings import VQGANSettings
from rissole.retrieval.settings import find_retrieval
from rissole.speed import rehearsal
from rissole.speed.rehearsal import Cost
from rissole.speed.stages import JUDGED, STAGES, Size

import yaml

PROJECT = Path(__file__).parents[3]
PATHS = {  # keys of params.yaml that hold paths, by section
    "data": ("root", "classes"),
    "vqgan": ("lpips_weights",),
    "encoder": ("weights",),
    "judge": ("inception",),
}
COPIES = 2  # of what lies in data/: DVC's cache holds another
# The power of (1 / true + 1 / drawn images) that the floor falls with while there are fewer images
# than features; then it falls with that itself. As it was on three sets of images under two judges.
SHORT, FEATURES = 0.7, 1280
PATIENCE = 40  # seconds for a training that is rehearsed


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
    ldm, sample = settings.section(LDM), settings.section(Sample)
    return Size(
        images,
        settings.section(VQGANSettings).steps,
        ldm.steps,
        ldm.validations,
        sample.images,
        sample.steps,
    )


def first_size(settings: Settings, of: Size) -> Size:
    """The first rehearsal of a run: enough images for the neighbours of each."""
    k = max((find_retrieval(settings, name).k for name in settings.names("retrievals")), default=0)
    enough = round(2 * k / (1 - settings.section(Data).validation))
    return _least(of, Size(max(250, enough), 5, 5, 1, 25, _steps(settings)[0]))


def second_size(settings: Settings, of: Size, first: "Rehearsal") -> Size:
    """The second: a whole batch of drawn images, and as many steps as there is patience for."""

    def steps(stage: str, before: int) -> int:
        return max(2 * before, round(PATIENCE * before / first.costs[stage].seconds))

    drawn = max(100, settings.section(Sample).batch)
    # Each needs a train image.
    enough = round(1.2 * drawn / (1 - settings.section(Data).validation))
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
    timesteps = settings.section(LDM).timesteps
    return [n for n in range(2, timesteps + 1) if timesteps % n == 0]


def _least(one: Size, other: Size) -> Size:
    return Size(*map(min, vars(one).values(), vars(other).values()))


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
    row = find_row(settings, name)
    contexts = (row.context, find_variant(settings, row.variant).context)
    tables = (context.removeprefix("neighbours/") for context in contexts)
    tables = dict.fromkeys(["main", *tables])
    tables = [table for table in tables if table in settings.names("retrievals")]
    kept = {"rows": [name], "variants": [row.variant], "retrievals": tables}
    (folder / "params.yaml").write_text(yaml.safe_dump(shortened(params, size, kept)))
    shutil.copy(PROJECT / "dvc.yaml", folder)  # which the report draws
    costs = {}
    for stage, of in STAGES.items():
        for word in kept.get(of.each, [None]):
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
    rows = settings.names("rows")
    retrieve = (name for name in rows if find_row(settings, name).context != "latents")
    return next(retrieve, rows[0])


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
    layers = [params["defaults"], preset, params]
    unreadable = Settings(params).section(Data).unreadable
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
        params[section] = (params.get(section) or {}) | changes
    for entries, own in (("variants", "ldm"), ("rows", "sample")):
        for entry in params[entries].values():
            entry[own] = {
                key: value
                for key, value in (entry.get(own) or {}).items()
                if key not in changed[own]
            }
    for section, keys in PATHS.items():
        for layer in (of.get(section) or {} for of in layers):
            for key in keys:
                if layer.get(key):
                    layer[key] = str(Path(layer[key]).absolute())
    return params


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
    for stage, of in STAGES.items():
        low, high = (tried.costs[stage] for tried in (first, second))
        sizes = (first.size, second.size, size)
        worked = [of.work(settings, each) for each in sizes]
        clocks = [first.worked.get(stage, low.seconds), second.worked.get(stage, high.seconds)]
        seconds = _on_the_line(*worked, *clocks) + high.seconds - clocks[1]
        if of.held:  # a batch is as large in the second rehearsal as in the run
            mb = high.mb + of.held(settings) * (size.images - second.size.images) / 1e6
        else:
            mb = _on_the_line(*(each.images for each in sizes), low.mb, high.mb)
        calls = of.calls(settings)
        found[stage] = Estimate(calls, calls * seconds, mb)
    return found


def _on_the_line(low: float, high: float, at: float, y_low: float, y_high: float) -> float:
    """What stands at `at` on the line through two points that rises or is level."""
    rise = max(0.0, y_high - y_low) / (high - low) if high > low else 0.0
    return y_high + rise * (at - high)


def floor(settings: Settings, size: Size, seen: Rehearsal) -> tuple[str, float]:
    """The score that true images would have, as many as a row draws; on three sets within a fifth.

    Returns:
        The name of the score, and the score.
    """
    share = settings.section(Data).validation

    def noise(of: Size) -> float:
        return 1 / min(share * of.images, JUDGED) + 1 / of.drawn

    def falls(noise: float) -> float:
        return noise * max(1.0, noise * FEATURES / 2) ** (SHORT - 1)

    name, measured = next(iter(seen.floor.items()))
    return name, measured * falls(noise(size)) / falls(noise(seen.size))


def disk(settings: Settings, size: Size, second: Rehearsal) -> float:
    """Bytes that the run will hold on disk, the copies in DVC's cache counted."""
    images, drawn = size.images / second.size.images, size.drawn / second.size.drawn
    times = {
        "split": images,
        "latents": images,
        "embeddings": images,
        "index": images,
        "neighbours": images * len(settings.names("retrievals")),
        "ldm": len(settings.names("variants")),
        "samples": drawn * len(settings.names("rows")),
        "audit": drawn * len(settings.names("rows")),
        "reference": images,
    }
    return COPIES * sum(times.get(name, 1) * left for name, left in second.left.items())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
