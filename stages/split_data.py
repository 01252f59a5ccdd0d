"""Cut the images to size and split them: params.yaml (data) -> data/split.

The side that an image falls on follows from its pixels, decoded and cut to size, or from the name
of its group, so it is the same in any order, on any machine and under any seed. Of pictures that
are equal once they are cut to size, the first stays.

    dvc repro split_data
    python stages/split_data.py
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rissole.core import config, files
from rissole.dataset import prepare, sides, sources
from rissole.dataset.settings import Data
from rissole.harness.errors import InputError
from rissole.harness.progress import progress
from rissole.harness.run import run

FOLDER = Path("data/split")
NAMED = 20  # duplicates that are named, one by one


def main() -> None:
    """Write data/split: Parquet shards of both splits and DATA_CARD.md."""
    settings = config.read()
    records = sources.records(settings.section(Data))
    size = settings.section(Data).size or sides.fitting(records)
    data = settings.section(Data).model_copy(update={"size": size})
    twins, unreadable = [], []

    def leave_out(name: str, reason: str) -> None:
        print(f"split_data: cannot read {shown(name)}: {reason}", file=sys.stderr)
        unreadable.append(name)
        if len(unreadable) > data.unreadable * len(records):
            raise InputError(
                f"{len(unreadable)} of the {len(records):,} files of source '{data.source}' cannot"
                f" be read (above), and data.unreadable allows for {data.unreadable:.1%} of them:"
                " mend or remove them, or raise it"
            )

    def kept(advance: Callable[[], None]) -> Iterator[tuple[str, sources.Record, prepare.Picture]]:
        seen: dict[int, str] = {}
        for record, picture in prepare.prepare_all(records, data.size):
            advance()
            if isinstance(picture, str):
                leave_out(record.name, picture)
            elif picture.twin not in seen:
                seen[picture.twin] = record.name
                yield side(record.group, picture.twin, data.validation), record, picture
            else:
                twins.append(record.name)
                if len(twins) <= NAMED:
                    print(
                        f"split_data: {shown(record.name)} is left out, as it looks the same as"
                        f" {shown(seen[picture.twin])}",
                        file=sys.stderr,
                    )

    shutil.rmtree(FOLDER, ignore_errors=True)
    with progress("split_data", " images", len(records)) as advance:
        counts = prepare.write_splits(FOLDER, kept(advance), data.size, data.shard)
    check(counts, data)
    settings.check_counts(counts["train"])
    summary = f"{counts['train']:,} train and {counts['val']:,} val images"
    if len(twins) > NAMED:
        print(f"split_data: and {len(twins) - NAMED:,} duplicates more", file=sys.stderr)
    dropped = f"{counted(len(twins), 'exact duplicate')} dropped"
    dropped += f", {records.left:,} beyond data.images left out" if records.left else ""
    dropped += f", {counted(len(unreadable), 'unreadable file')} left out" if unreadable else ""
    with files.replacing(FOLDER / "DATA_CARD.md") as scratch:
        scratch.write_text(data_card(data, summary, dropped), "utf-8")
    print(f"split_data: {summary} -> {FOLDER} ({dropped})")


def shown(name: str) -> str:
    """The name of a file as it can be printed."""
    return name if name.isprintable() else repr(name)


def counted(count: int, what: str) -> str:
    """So many of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def side(group: str | None, number: int, validation: float) -> str:
    """The split of an image, by a hash of its group's name or else of its pixels' number."""
    name = f"image {number}" if group is None else f"group {group}"
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") / 2**64
    return "val" if share < validation else "train"


def check(counts: dict[str, int], data: Data) -> None:
    """Refuse a split that leaves a side nearly empty."""
    for split, count in counts.items():
        if count < 2:
            raise InputError(
                f"only {count} of the images of source '{data.source}' fell to {split}, and 2 are"
                f" needed: give more images (or groups), or change data.validation"
                f" ({data.validation})"
            )


def data_card(data: Data, summary: str, dropped: str) -> str:
    """What the images are, where they come from and how they were treated, as Markdown."""
    return f"""# Data card

{sources.credit(data)}

- Source: `{data.source}`.
- {summary} ({dropped}).
- {data.size} x {data.size} pixels, RGB, 8 bits: shorter side scaled to {data.size} (bilinear,
  antialiased), then cropped to the centre.
- Split by the hash of the pixels, or of the group's name; {data.validation:.0%} for val.
"""


if __name__ == "__main__":
    run(main)
