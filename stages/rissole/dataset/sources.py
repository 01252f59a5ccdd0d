"""Where images come from: each source lists its images, none of them decoded yet."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from rissole.dataset.settings import Data
from rissole.harness.errors import InputError

STYLE = "toon-head"
HAIR = ("bun", "sideComed", "spiky", "undercut")
# Frontal faces that fill the picture, all in one place: what varies is what a small network can
# learn in a minute. Hair, skin and background span the blocks and so must agree across them.
OPTIONS = {
    "scale": 1.35,
    "translateY": 6,
    "backgroundColor": ["a9d6ec", "f7c8cf", "fbd9a8", "bcdcae", "cfc4ea", "f1ecdf"],
    "backgroundColorFill": "solid",
    "skinColor": ["7a4c34", "a86f4c", "cd946f", "e8b894", "f8d8c2"],
    "hairColor": ["2b2220", "54301f", "a8612f", "dcb567", "c9c4bd", "b5452f"],
    "clothesColor": ["36538f", "5a5a5a", "3f8a5c", "e08a45", "cf6f96", "7d5fae", "e8e6df"],
    "eyesVariant": {"wide": 3, "happy": 1, "bow": 1, "humble": 1, "wink": 1},
    "mouthVariant": {"smile": 3, "laugh": 2, "agape": 1, "sad": 1, "angry": 1},
    "rearHairProbability": 50,
    "beardProbability": 30,
}
LARGEST = 10**9  # bytes of a file
ENDINGS = ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pgm .png .pnm .ppm .tif .tiff .webp"


@dataclass(frozen=True, slots=True)
class Record:
    """One image: its path below the root (or name), what is known of it, how to get its file."""

    name: str
    label: str | None
    group: str | None
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Listing(Sequence):
    """Images by their names; a record, ten times as large, is made when it is asked for."""

    names: list[str]
    record: Callable[[str], Record]
    left: int = 0  # names that were not asked for

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self.record(name) for name in self.names[at]]
        return self.record(self.names[at])


def records(data: Data) -> Listing:
    """The images of the chosen source, in the order of their names.

    Where `data.images` bounds their number, they are taken at even distances from the whole
    list, so that every folder keeps its share.

    Raises:
        InputError: where files or folders are missing or do not fit together.
    """
    every = SOURCES[data.source](data)
    if data.images is None or data.images >= len(every):
        return every
    chosen = (i * len(every) // data.images for i in range(data.images))
    return Listing([every.names[i] for i in chosen], every.record, len(every) - data.images)


def bare(root: Path, size: int) -> Data:
    """The settings of a folder of images that have no labels and no groups."""
    return Data(
        source="folder",
        root=str(root),
        size=size,
        images=None,
        validation=0.5,
        labels=None,
        groups=None,
        classes=None,
        unreadable=1.0,
        shard=1,
    )


def avatars(data: Data) -> Listing:
    """Faces drawn by DiceBear in the style "toon-head"; the label is the hair style."""
    names = [f"{STYLE}/{number:06}" for number in range(data.images)]
    return Listing(names, partial(_avatar, data.size))


def draw_avatar(number: int, size: int) -> bytes:
    """Draw one face, the same in every process: a PNG of `size` pixels per side."""
    import resvg_py
    from dicebear import Avatar

    options = {"seed": f"{number}", "hairVariant": HAIR[number % len(HAIR)], **OPTIONS}
    svg = Avatar(_style(), options).to_string()
    return resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)


def folder(data: Data) -> Listing:
    """All images of a tree; the label is the first sub-folder or what `data.labels` finds.

    `data.groups` finds the group. Files without an image's ending and hidden ones are passed over.
    With `data.classes`, only the listed sub-folders are read.
    """
    root = _root(data)
    tops = [root] if data.classes is None else _class_folders(root, Path(data.classes))
    endings = tuple(ENDINGS.split())
    prefixes = ("" if top == root else f"{top.relative_to(root).as_posix()}/" for top in tops)
    every = (name for prefix in prefixes for name in _visible(root, prefix))
    names = sorted(name for name in every if name.lower().endswith(endings))
    patterns = {"labels": data.labels, "groups": data.groups}
    for key, pattern in patterns.items():
        if pattern is not None:
            for name in names:
                _found_in(name, key, pattern)
    return _found(Listing(names, partial(_file, root, patterns)), root)


def imagenet100(data: Data) -> Listing:
    """A hundred class folders of ImageNet below the root, or below its `train` where it has one.

    The paper does not say which classes are its own; the class list names a folder per line.
    """
    root = _root(data)
    train = root / "train"
    return folder(data.model_copy(update={"root": str(train if train.is_dir() else root)}))


def celeba(data: Data) -> Listing:
    """CelebA as it is unpacked: img_align_celeba/ beside its two lists; group = identity.

    The paper splits at random and ignores the official partition; so do we, but keep each person
    on one side. The partition file serves to check that the folder is complete.
    """
    root = _root(data)
    pictures = root / "img_align_celeba"
    if not pictures.is_dir():
        raise InputError(f"{pictures} is not a folder; unpack CelebA's img_align_celeba.zip there")
    partition = _columns(root / "list_eval_partition.txt")
    identity = _columns(root / "identity_CelebA.txt")
    names = sorted(path.name for path in pictures.glob("*.jpg"))
    for other, what in (partition, "list_eval_partition.txt"), (identity, "identity_CelebA.txt"):
        odd = sorted(other.keys() ^ set(names))
        if odd:
            raise InputError(
                f"{pictures} holds {len(names):,} images, {what} names {len(other):,}: only one of"
                f" the two has {', '.join(odd[:3])}; unpack CelebA again"
            )
    return _found(Listing(names, partial(_celebrity, pictures, identity)), root)


SOURCES = {"avatars": avatars, "folder": folder, "celeba": celeba, "imagenet100": imagenet100}


def credit(data: Data) -> str:
    """Who made the images and what may be done with them, as Markdown."""
    if data.source != "avatars":
        return CREDITS[data.source]
    meta = _style_file()["meta"]
    return (
        f"Faces drawn by DiceBear (https://www.dicebear.com) in the style"
        f" [{meta['source']['name']}]({meta['source']['url']})"
        f" by [{meta['creator']['name']}]({meta['creator']['url']}),"
        f" with colours of our own.\n\n{meta['license']['text']}"
    )


KEY = "`-S +data.root=...`"
WANTED = {
    "folder": "the images",
    "celeba": (
        "img_align_celeba/, list_eval_partition.txt and identity_CelebA.txt of"
        " https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    ),
    "imagenet100": "the class folders of the train images of ILSVRC 2012 (https://image-net.org)",
}
CREDITS = {
    "folder": "Images of the user's own; their licence is the user's to know.",
    "celeba": (
        "CelebA, aligned and cropped (Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the"
        " Wild, ICCV 2015), for non-commercial research only."
    ),
    "imagenet100": (
        "A hundred classes of ImageNet (Deng et al.: ImageNet: A Large-Scale Hierarchical Image"
        " Database, CVPR 2009), for non-commercial research and education only."
    ),
}


@cache
def _style():
    from dicebear import Style

    return Style(_style_file())


def _style_file() -> dict:
    return json.loads(files("dicebear_styles").joinpath(f"{STYLE}.json").read_text("utf-8"))


def _root(data: Data) -> Path:
    root = Path(data.root)
    if not root.is_dir():
        raise InputError(
            f"params.yaml: data.root of the chosen preset is '{root}', which is not a folder; put"
            f" {WANTED[data.source]} there, or name the folder that has them: {KEY}"
        )
    return root


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        raise InputError(f"{path} cannot be read; put the list there") from None
    return [line.strip() for line in lines if line.strip()]


def _columns(path: Path) -> dict[str, str]:
    rows = [line.split() for line in _lines(path)]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != 2]
    if wrong:
        raise InputError(f"{path}: line {wrong[0]} is not 'image value'; take the original file")
    return dict(rows)


def _class_folders(root: Path, classes: Path) -> list[Path]:
    listed = _lines(classes)
    twice = sorted(name for name, times in Counter(listed).items() if times > 1)
    if twice:
        raise InputError(f"{classes} names {', '.join(twice[:5])} more than once; mend the list")
    folders = [root / line for line in listed]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise InputError(
            f"{root} has no folder for {len(missing)} of the {len(folders)} classes of {classes}:"
            f" {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}; add them or mend"
            " the list"
        )
    return folders


def _visible(root: Path, prefix: str, above: tuple[os.stat_result, ...] = ()) -> Iterator[str]:
    """What is below a folder of the root and no folder, hidden ones left out, one at a time.

    Links are followed, but to a folder around them. Raises InputError where a folder cannot be
    read.
    """
    here = root / prefix
    above = above or tuple(folder.stat() for folder in here.resolve().parents)
    try:
        above, entries = (*above, here.stat()), os.scandir(here)
    except OSError as error:
        raise InputError(f"{here} cannot be read ({error.strerror}); make it so") from None
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield f"{prefix}{entry.name}"
            elif any(os.path.samestat(entry.stat(), folder) for folder in above):
                print(f"{Path(entry.path)}: links to a folder around it", file=sys.stderr)
            else:
                yield from _visible(root, f"{prefix}{entry.name}/", above)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False


def _avatar(size: int, name: str) -> Record:
    number = int(name.rpartition("/")[2])
    return Record(name, HAIR[number % len(HAIR)], None, partial(draw_avatar, number, size))


def _celebrity(pictures: Path, identity: dict[str, str], name: str) -> Record:
    return Record(name, None, identity[name], partial(_read, pictures, name))


def _file(root: Path, patterns: dict[str, str | None], name: str) -> Record:
    read = partial(_read, root, name)
    name = name.encode("utf-8", "replace").decode()  # Parquet knows no other bytes than UTF-8
    found = {key: _found_in(name, key, of) if of else None for key, of in patterns.items()}
    first, slash, _ = name.partition("/")
    return Record(name, found["labels"] or (first if slash else None), found["groups"], read)


def _read(root: Path, name: str) -> bytes:
    size = (root / name).stat().st_size
    if not (root / name).is_file() or size > LARGEST:  # a pipe would be waited for
        raise OSError(f"no file, or one of more than {LARGEST / 1e9:.0f} GB")
    return (root / name).read_bytes()


def _found_in(name: str, key: str, pattern: str) -> str:
    match = re.search(pattern, name)
    if match is None or match[1] is None:
        raise InputError(
            f"params.yaml: data.{key} '{pattern}' finds nothing in '{name}'; make it match the path"
            " of every image below the root"
        )
    return match[1]


def _found(listing: Listing, root: Path) -> Listing:
    if not listing:
        raise InputError(f"{root} holds no images ({ENDINGS}); name another folder: {KEY}")
    return listing
