"""Settings of sampling, and of the rows of the tables."""

from typing import Annotated, ClassVar, Literal, Self

from rissole.core.config import (
    Checked,
    Count,
    Extent,
    Positive,
    Section,
    Settings,
    key_of,
    located,
)

from pydantic import Field

DRAWN, SHARE = 1000, 0.75  # images at most, and of the train images, where that is left to them


class Sample(Section):
    """Section `sample`: how images are drawn."""

    SECTION: ClassVar[str] = "sample"

    images: Annotated[int, Field(ge=10)] | None  # fewer tell no distance
    sampler: Literal["ddpm", "ddim", "dpmsolver++", "heun"]
    steps: Positive
    batch: Positive

    def fitted(self, extent: Extent) -> Self:
        """With so many images as there are queries for, where that was left to the images."""
        images = min(DRAWN, int(SHARE * extent.train))
        return self.model_copy(update={} if self.images else {"images": images})


class Row(Checked):
    """One row of the table: images drawn with a variant's weights, and what is forgiven them."""

    variant: str
    context: str
    seed: Count | None = None
    sample: dict = {}
    may_copy: bool = False


def find_row(settings: Settings, name: str) -> Row:
    """One row of the table; of an ablation with a seed, that of its variant or of its noise."""
    of, (family, _, seed) = settings.entry("rows", name, Row), located(name)
    if seed is None:
        return of
    if of.variant.startswith(f"{family}/"):
        return of.model_copy(update={"variant": f"{of.variant}/{seed}"})
    return of.model_copy(update={"seed": seed})


def row_sample(settings: Settings, name: str) -> Sample:
    """Section `sample` as the row changes it."""
    of = settings.entry("rows", name, Row)
    return settings.section(Sample, of.sample, f"{key_of('rows', name)}.sample")
