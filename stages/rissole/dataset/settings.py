"""Settings of the data set: which images, how they are cut to size and split."""

import re
from typing import Annotated, ClassVar, Literal, Self

from rissole.core.config import Extent, Positive, Section

from pydantic import Field, model_validator

SIDES = (
    32,
    64,
)  # of pictures, in pixels; a larger one is asked for, as it costs four times as much


class Data(Section):
    """Section `data`: which images, and how they are cut to size and split."""

    SECTION: ClassVar[str] = "data"

    source: Literal["avatars", "folder", "celeba", "imagenet100"]
    root: str | None
    size: Annotated[int, Field(ge=8)] | None
    images: Positive | None
    validation: Annotated[float, Field(gt=0, lt=1)]
    labels: str | None
    groups: str | None
    classes: str | None
    unreadable: Annotated[float, Field(ge=0, le=1)]
    shard: Positive

    @model_validator(mode="after")
    def _possible(self):
        if self.source != "avatars" and self.root is None:
            raise ValueError(f"root: a path is needed for source '{self.source}'")
        if self.source == "avatars" and self.images is None:
            raise ValueError("images: a number is needed for source 'avatars'")
        if self.source == "avatars" and self.size is None:
            raise ValueError("size: a number of pixels is needed for source 'avatars'")
        if self.source == "imagenet100" and self.classes is None:
            raise ValueError("classes: the file that lists the classes is needed for imagenet100")
        for key, pattern in (("labels", self.labels), ("groups", self.groups)):
            try:
                found = 1 if pattern is None else re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{key}: not a regular expression ({error})") from None
            if found != 1:
                raise ValueError(f"{key}: must hold exactly one pair of parentheses")
        return self

    def fitted(self, extent: Extent) -> Self:
        """With the side of the pictures, where it was left to them."""
        return self.model_copy(update={} if self.size else {"size": extent.side})
