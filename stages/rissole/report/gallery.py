"""The samples of all rows side by side, and what a clicked one shows, as the page's data."""

from rissole.core.config import Settings
from rissole.denoiser import views
from rissole.denoiser.settings import find_variant
from rissole.drawing.settings import find_row
from rissole.latent import originals
from rissole.latent.originals import Original
from rissole.report import webp
from rissole.report.shown import Shown
from rissole.retrieval.settings import find_retrieval

# Of the page's 5 MB, bytes that data URIs may take: samples and their mosaics, train images,
# steps of the denoising. Two thirds of the pictures are steps, and noise is dear.
SAMPLES, TRAIN, PATHS = 1_300_000, 1_500_000, 1_200_000
ALL = 256  # samples of all rows together
FEWEST = 4  # of a row, however many rows there are
TOLD = {  # how neighbours enter
    "stack": "stacked by rank",
    "set": "as a set",
    "tokens": "as an embedding each",
}


def describe(settings: Settings, row: str) -> str:
    """What a row is, in a line: how it is cut, what it is told.

    Args:
        settings: of the run.
        row: of the table.
    """
    of = find_row(settings, row)
    variant = find_variant(settings, of.variant)
    side = variant.blocks
    parts = ["drawn whole" if side == 1 else f"{side} × {side} blocks"]
    if variant.space == "pixel":
        parts.append("of pixels")
    if variant.network != "unet":
        parts.append(f"network {variant.network}")
    if variant.neighbours == "none":
        parts.append("told no neighbours")
    else:
        table = find_retrieval(settings, of.context.partition("/")[2])
        query = table.query.replace("_", " ")
        parts.append(f"told {table.k} neighbours by {query}, {TOLD[variant.neighbours]}")
        if table.exclude == "none":
            parts.append("the query itself not excluded")
    named = ("position", "previous", "coordinates")
    parts += [f"+ {name}" for name in named if getattr(variant, name)]
    if variant.halo:
        parts.append(f"+ halo of {variant.halo}")
    if variant.seed != settings.seed:
        parts.append(f"seed {variant.seed}")
    return ", ".join(parts)


def turns(settings: Settings, row: str) -> int:
    """In how many turns, each of all steps, the blocks of a row are drawn."""
    return len(views.Grid(find_variant(settings, find_row(settings, row).variant)).turns)


def build(
    rows: dict[str, Shown], train: dict[int, Original], about: dict[str, str], turns: dict[str, int]
) -> dict:
    """What the page holds of all rows, JSON values only.

    Args:
        rows: what is shown of each, in the order of the page.
        train: the train images that they name.
        about: each row in a line.
        turns: in which the blocks of each row are drawn.

    Returns:
        `rows`, each with its `samples`, and `train`, the images that these name by their place.
    """
    count = max(FEWEST, ALL // len(rows))
    samples = [(of, place) for of in rows.values() for place in range(len(of.samples[:count]))]
    mosaics = [
        originals.mosaic([train[number] for number in of.samples[place]["nearest_by_block"]])
        for of, place in samples
    ]
    pictures = webp.fit([of.pictures[place] for of, place in samples] + mosaics, SAMPLES)
    steps = iter(
        webp.fit([step for of, place in samples for step in of.moments[place][:-1]], PATHS)
    )
    drawn = zip(pictures[: len(samples)], pictures[len(samples) :], strict=True)
    told: dict[int, int] = {}
    content = [
        {
            "name": name,
            "about": about[name],
            "drawnIn": of.drawn_in,
            "steps": of.steps,
            "turns": turns[name],
            "samples": [
                _sample(sample, told)
                | dict(zip(("src", "mosaic"), next(drawn), strict=True))
                | {"path": [next(steps) for _ in of.steps[1:]]}
                for sample in of.samples[:count]
            ],
        }
        for name, of in rows.items()
    ]
    images = webp.fit([train[number].pixels for number in told], TRAIN)
    shown = zip(told, images, strict=True)
    return {
        "rows": content,
        "train": [
            {"id": str(number), "name": train[number].name, "src": src} for number, src in shown
        ],
    }


def _sample(of: dict, told: dict[int, int]) -> dict:
    """What is known of a sample; `told` gives train images their places, in the order met."""

    def place(number: int) -> int:
        return told.setdefault(number, len(told))

    near = zip(of["neighbours"] or [], of["similarities"] or [], strict=True)
    blocks = zip(of["nearest_by_block"], of["distance_by_block"], strict=True)
    return {
        "number": of["number"],
        "seed": of["seed"],
        "sampler": of["sampler"],
        "query": None if of["query"] is None else place(of["query"]),
        "neighbours": [[place(number), f"{cosine:.3f}"] for number, cosine in near],
        "retrieved": of["retrieved"],
        "nearest": [place(of["nearest"]), f"{of['distance']:.2f}"],
        "blocks": [[str(number), f"{distance:.2f}"] for number, distance in blocks],
        "copied": verdict(of),
    }


def verdict(of: dict) -> str:
    """Whether a sample is named a copy: yes, no or unknown, where no test vouches for it."""
    if of["copied"]:
        return "yes"
    return "no" if of["vouched"] else "unknown"
