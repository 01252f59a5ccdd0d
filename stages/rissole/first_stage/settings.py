"""Settings of the first stage and its training."""

import math
from typing import Annotated, ClassVar, Literal, Self

from rissole.core.config import Checked, Count, Extent, Positive, Rate, Section, Share, Weight

from pydantic import Field, model_validator

# Chosen at 8,000 train images, on drawn and photographed faces; the codebook is not left to the
# images: 4,096 codes reconstructed better than 512 and drew worse.
PASSES, FEWEST = 4, 2000  # over the train images, and steps, where the steps are left to them


class FSQ(Checked):
    """Finite scalar quantisation: each latent channel is rounded to one of its levels."""

    kind: Literal["fsq"]
    levels: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self):
        if math.prod(self.levels) > 65536:
            raise ValueError(f"levels: their product {math.prod(self.levels):,} is above 65,536")
        return self


class VQ(Checked):
    """Vector quantisation with a codebook learned by moving averages."""

    kind: Literal["vq"]
    codes: Annotated[int, Field(ge=2, le=65536)]
    channels: Positive
    decay: Share
    commitment: Weight
    restart: Weight


class VQGANSettings(Section):
    """Section `vqgan`: the first stage and its training."""

    SECTION: ClassVar[str] = "vqgan"

    widths: Annotated[list[Positive], Field(min_length=1)]
    attention: Literal["none", "bare", "residual"]
    quantiser: Annotated[FSQ | VQ, Field(discriminator="kind")]
    l1: Weight
    l2: Weight
    perceptual: Literal["none", "efficientnet_lite0", "lpips"]
    perceptual_weight: Weight
    perceptual_share: Annotated[float, Field(gt=0, le=1)]
    lpips_weights: str | None
    adversarial_weight: Weight
    adversarial_cap: Weight
    adversarial_start: Annotated[float, Field(ge=0, le=1)]
    discriminator_start: Annotated[float, Field(ge=0, le=1)]
    discriminator_layers: Positive
    steps: Positive | None
    batch: Positive
    learning_rate: Rate
    warm_up: Count
    decay_from: Annotated[float, Field(ge=0, le=1)]
    flips: bool

    @model_validator(mode="after")
    def _possible(self):
        if any(width % 8 for width in self.widths):
            raise ValueError(f"widths: {self.widths} must be multiples of 8 (group norm)")
        if self.perceptual == "lpips" and self.lpips_weights is None:
            raise ValueError("lpips_weights: a path is needed for perceptual 'lpips'")
        if self.discriminator_start > self.adversarial_start:
            raise ValueError("discriminator_start: must not be later than adversarial_start")
        return self

    def fitted(self, extent: Extent) -> Self:
        """With so many steps as the images ask for, where that was left to them."""
        steps = max(FEWEST, round(PASSES * extent.train / self.batch))
        return self.model_copy(update={} if self.steps else {"steps": steps})
