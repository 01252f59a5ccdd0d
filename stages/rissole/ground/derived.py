"""What params.yaml may leave to the images: how long to train, how many to draw.

Passes were chosen at 8,000 train images, on drawn and photographed faces; the fewest steps are what
the quick preset shows to draw faces at all. The side of pictures is left to them likewise, by
`dataset.sides`. The codebook is not: 4,096 codes reconstructed better than 512 and drew worse.
"""

from dataclasses import dataclass
from typing import TypeVar

from rissole.ground.schema import LDM, VQGAN, Data, Sample

Section = TypeVar("Section")

SIDES = (
    32,
    64,
)  # of pictures, in pixels; a larger one is asked for, as it costs four times as much
PASSES = {VQGAN: 4, LDM: 3}  # over the train images
FEWEST = {VQGAN: 2000, LDM: 1000}  # steps
DRAWN = 1000  # images at most
SHARE = 0.75  # of the train images, which are the queries, at most


@dataclass(frozen=True)
class Extent:
    """Of the images that a run works with.

    Attributes:
        train: how many there are in the train split.
        side: pixels.
    """

    train: int
    side: int


def fill(section: Section, extent: Extent) -> Section:
    """A section of params.yaml with what it leaves to the images filled in."""
    kind, found = type(section), {}
    if kind in PASSES and section.steps is None:
        found["steps"] = max(FEWEST[kind], round(PASSES[kind] * extent.train / section.batch))
    if kind is Sample and section.images is None:
        found["images"] = min(DRAWN, int(SHARE * extent.train))
    if kind is Data and section.size is None:
        found["size"] = extent.side
    return section.model_copy(update=found)
