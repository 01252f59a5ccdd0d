"""Before a long run: find out what would stop it, and what it will take.

Not a stage. Reads params.yaml and lists the images, then runs every stage twice on a few of them,
in a folder of its own under checkpoints/, with a few steps of the preset's own networks, which
takes some minutes: what fails there would fail later. Prints time, memory and disk that the run
will take, and what score is within reach. One row is tried, the first that retrieves; others are
taken to cost as much. What several devices would make of it is arithmetic.

    python stages/check_setup.py
    python stages/check_setup.py --preset folder --root /path/to/images
    python stages/check_setup.py --preset celeba --gpus 8
"""

import os
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from rissole import params
from rissole.core import config, memory, numerics
from rissole.core.config import Extent
from rissole.dataset import sides, sources
from rissole.dataset.settings import Data
from rissole.denoiser.settings import variant_ldm
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.harness.run import run
from rissole.results import tables
from rissole.retrieval.settings import Index
from rissole.speed import estimate
from rissole.speed.estimate import Estimate, Rehearsal
from rissole.speed.stages import STAGES, Size

import pandas as pd
import yaml

FOLDER = Path("checkpoints")
FEWEST = 12  # val images, as they are expected: with fewer there is nothing to compare with


def main(preset: str = "", root: str = "", gpus: str = "1") -> None:
    """Check, rehearse and print.

    Args:
        preset: to look at, in the place of params.yaml's.
        root: folder of the images, in the place of its.
        gpus: devices that the work would be shared by.
    """
    content, devices = overridden(preset, root), _number(gpus)
    settings = read(content)
    check_batches(settings, devices)
    device = numerics.set_up(settings.threads)
    records = sources.records(settings.section(Data))
    images = len(records)
    print(
        f"preset {settings.preset}: {images:,} images of source '{settings.section(Data).source}',"
        f" {len(settings.names('variants'))} denoisers, {len(settings.names('rows'))} rows, on"
        f" {device.type}, {settings.threads} threads",
        flush=True,
    )
    train = round(images * (1 - settings.section(Data).validation))
    settings.check_counts(train)
    check_judged(images - train, settings.section(Data).validation)
    settings = settings.fitted(Extent(train, settings.section(Data).size or sides.fitting(records)))
    size = estimate.whole(settings, images)
    first = rehearse(settings, content, estimate.first_size(settings, size))
    second = rehearse(settings, content, estimate.second_size(settings, size, first))
    found = estimate.extrapolate(settings, size, first, second)
    print(tables.markdown(pd.DataFrame(lines(found, devices)), left=1))
    alone = sum(of.seconds / of.calls for stage, of in found.items() if STAGES[stage].scores)
    command, row = command_of(preset, root), next(iter(settings.names("rows")))
    print(f"one row alone: {duration(alone)} (`{command} compute_fid@{row}`)")
    if train > settings.section(Index).exact_below:
        print(
            f"two stages are but guessed at {train:,} train images: retrieve_neighbours as if its"
            " search were exact, where ScaNN's is faster, and compute_fid without what its search"
            " for copies grows with them"
        )
    name, floor = estimate.floor(settings, size, second)
    print(
        f"as many true images as a row draws ({size.drawn:,}) would score roughly {floor:.2g}"
        f" ({name}): no row can be expected to do better"
    )
    check_disk(estimate.disk(settings, size, second))
    check_memory(found)
    warn_of_strangers()
    print(f"check_setup: nothing stands in the way of `{command}`; it will take {total(found)}")


def overridden(preset: str, root: str) -> dict:
    """The content of params.yaml, with another preset or folder of images where one is given.

    The ablations, which lie in a file of their own, are left out.
    """
    content = {key: of for key, of in config.read().content.items() if key != "ablations"}
    if preset:
        content["preset"] = preset
    if root:
        content["data"] = (content.get("data") or {}) | {"root": root}
        if config.Settings(content).section(Data).source == "avatars":
            raise InputError(
                f"--root is '{root}': preset {content['preset']} draws its images itself; add"
                " `--preset folder`"
            )
    return content


def read(content: dict) -> config.Settings:
    """The settings that some content of params.yaml makes, checked as a whole."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        return params.read(path)


def check_batches(settings: config.Settings, devices: int) -> None:
    """Refuse batches that so many devices cannot share evenly."""
    batches = {"vqgan.batch": settings.section(VQGANSettings).batch}
    batches |= {
        f"ldm.batch (variant {name})": variant_ldm(settings, name).batch
        for name in settings.names("variants")
    }
    for key, batch in batches.items():
        if batch % devices:
            raise InputError(
                f"params.yaml: {key} is {batch}: {devices} devices cannot share it evenly; change"
                " either"
            )


def check_judged(val: int, validation: float) -> None:
    """Refuse fewer val images than scores can be made with."""
    if val < FEWEST:
        raise InputError(
            f"about {val} images would be held out, and scores need {FEWEST}: give more images, or"
            f" raise data.validation ({validation})"
        )


def rehearse(settings: config.Settings, content: dict, size: Size) -> Rehearsal:
    """Run everything once in a small size."""
    print(
        f"rehearsing with {size.images:,} images, {size.first_stage} and {size.denoiser} steps of"
        f" training and {size.drawn} drawn images ...",
        flush=True,
    )
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="rehearsal-", dir=FOLDER) as folder:
        return estimate.rehearse(settings, content, size, Path(folder))


def lines(found: dict[str, Estimate], devices: int) -> list[dict[str, str]]:
    """A line for each stage, and one for all."""
    shared = {
        stage: of.seconds / (devices if STAGES[stage].shared else 1) for stage, of in found.items()
    }
    shown = [
        {
            "stage": stage,
            "runs": str(of.calls),
            "time": duration(of.seconds),
            **on_more(shared[stage], devices),
            "host memory (MB)": f"{of.mb:,.0f}",
        }
        for stage, of in found.items()
    ]
    return [
        *shown,
        {
            "stage": "in all",
            "runs": str(sum(of.calls for of in found.values())),
            "time": total(found),
            **on_more(sum(shared.values()), devices),
            "host memory (MB)": f"{max(of.mb for of in found.values()):,.0f}",
        },
    ]


def on_more(seconds: float, devices: int) -> dict[str, str]:
    """A column for several devices, where they are asked for."""
    return {f"on {devices} such devices, at best": duration(seconds)} if devices > 1 else {}


def total(found: dict[str, Estimate]) -> str:
    """The time of the whole run."""
    return duration(sum(of.seconds for of in found.values()))


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def command_of(preset: str, root: str) -> str:
    """What runs that which was looked at."""
    words = [f"preset={preset}"] if preset else []
    if root:
        words.append(f"+data.root={root}")
    settings = "".join(f" -S {shlex.quote(word)}" for word in words)
    return f"dvc exp run{settings}" if words else "dvc repro"


def check_disk(needed: float) -> None:
    """Refuse a run for which there is no room."""
    free = shutil.disk_usage(".").free
    print(f"disk: {needed / 1e9:.2f} GB with the copies in DVC's cache; {free / 1e9:.1f} GB free")
    if needed > free:
        raise InputError(
            f"the run needs {needed / 1e9:,.1f} GB on disk, and {free / 1e9:,.1f} GB are free: make"
            " room, or lower data.images or sample.images"
        )


def check_memory(found: dict[str, Estimate]) -> None:
    """Refuse a run that memory does not suffice for."""
    stage, most = max(found.items(), key=lambda of: of[1].mb)
    free = memory.free() / 1e6
    print(f"memory: {most.mb:,.0f} MB at most, in {stage}; {free:,.0f} MB free")
    if most.mb > free:
        raise InputError(
            f"{stage} needs {most.mb:,.0f} MB of memory, and {free:,.0f} MB are free: lower"
            " data.images or sample.batch, or end other programs"
        )


def warn_of_strangers() -> None:
    """Say where others could write what DVC unpickles (the README's "Trust")."""
    known = Path(os.environ.get("DVC_SITE_CACHE_DIR") or "/var/tmp/dvc")
    if known.exists() and known.stat().st_mode & 0o002:
        print(
            f"if others use this machine: they can write to {known}, from which DVC reads pickles;"
            " `mkdir -m 700 ~/.private && export DVC_SITE_CACHE_DIR=~/.private/dvc` keeps them out"
        )


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"--gpus is '{text}': must be a number from 1 on")
    return int(text)


if __name__ == "__main__":
    run(main)
