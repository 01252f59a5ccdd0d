"""Settings of the denoiser and its training, and of the variants of it."""

from typing import Annotated, ClassVar, Literal, Self

from rissole.core.config import (
    Checked,
    Count,
    Extent,
    Positive,
    Rate,
    Section,
    Settings,
    Share,
    key_of,
    located,
)

from pydantic import Field, model_validator

# Chosen at 8,000 train images; the fewest steps are what the quick preset shows to draw faces.
PASSES, FEWEST = 3, 1000  # over the train images, and steps, where the steps are left to them


class LDM(Section):
    """Section `ldm`: the denoiser and its training."""

    SECTION: ClassVar[str] = "ldm"

    widths: Annotated[list[Positive], Field(min_length=1)]
    depth: Positive
    embedding: Positive
    heads: Positive
    head_width: Positive
    attention: Literal["bare", "residual"]
    dropout: Share
    final_kernel: Literal[1, 3, 5]
    normalise: bool
    prediction: Literal["epsilon", "v_prediction", "sample"]
    schedule: Literal["linear", "squaredcos_cap_v2", "lognormal"]
    timesteps: Positive
    share_timestep: Literal["block", "image", "batch"]
    average: Share
    steps: Positive | None
    batch: Positive
    learning_rate: Rate
    warm_up: Count
    decay_from: Annotated[float, Field(ge=0, le=1)]
    clip: Annotated[float, Field(gt=0)] | None
    validations: Positive

    @model_validator(mode="after")
    def _possible(self):
        if any(width % 16 for width in self.widths):
            raise ValueError(f"widths: {self.widths} must be multiples of 16 (group norm, stem)")
        return self

    def fitted(self, extent: Extent) -> Self:
        """With so many steps as the images ask for, where that was left to them."""
        steps = max(FEWEST, round(PASSES * extent.train / self.batch))
        return self.model_copy(update={} if self.steps else {"steps": steps})


class Patch(Checked):
    """A size of patches to train on: parts of a side of the image, and its share of the steps."""

    parts: Positive
    share: Rate


class Variant(Checked):
    """One denoiser to train: what it conditions on, and what it changes in `ldm`."""

    context: str
    space: Literal["latent", "pixel"] = "latent"
    network: Literal["unet", "ddpmpp", "patch_dm"] = "unet"
    neighbours: Literal["none", "stack", "set", "tokens"] = "none"
    position: bool = False
    previous: bool = False
    halo: Count = 0
    coordinates: bool = False
    patches: list[Patch] = []
    collage: Count = 0
    blocks: Positive | None = None
    seed: Count | None = None
    ldm: dict = {}

    @model_validator(mode="after")
    def _possible(self):
        if (self.neighbours == "none") != (self.context == "latents"):
            raise ValueError(
                f"context: '{self.context}' does not go with neighbours '{self.neighbours}'; a row"
                " without neighbours reads 'latents', any other 'neighbours/<retrieval>'"
            )
        if self.previous and self.neighbours not in ("none", "stack"):
            raise ValueError("previous: goes with neighbours 'none' or 'stack' only")
        if self.patches and (self.blocks != 1 or self.neighbours != "none" or self.position):
            raise ValueError("patches: go with 'blocks: 1', without neighbours and position")
        if self.patches and abs(sum(of.share for of in self.patches) - 1) > 1e-6:
            raise ValueError("patches: the shares of the sizes must add up to 1")
        if self.network == "ddpmpp" and (
            self.neighbours != "none" or self.halo or self.position or self.previous
        ):
            raise ValueError("network: 'ddpmpp' is told nothing but coordinates")
        if (self.network == "patch_dm") != (self.collage > 0):
            raise ValueError("collage: goes with network 'patch_dm', and that with no less than 1")
        if self.network == "patch_dm" and (
            self.blocks != 1
            or self.neighbours == "tokens"
            or self.halo
            or self.position
            or self.previous
            or self.coordinates
            or self.patches
        ):
            raise ValueError(
                "network: 'patch_dm' goes with 'blocks: 1' and, beside neighbours by stack or set,"
                " nothing else"
            )
        if self.previous and self.coordinates:
            raise ValueError("previous: cannot go with coordinates")
        if self.previous and self.halo:
            raise ValueError("previous: cannot go with a halo, whose blocks advance together")
        return self


def find_variant(settings: Settings, name: str) -> Variant:
    """One denoiser to train, its number of blocks per side and its seed filled in."""
    of, (_, _, seed) = settings.entry("variants", name, Variant), located(name)
    given = settings.seed if of.seed is None else of.seed
    return of.model_copy(
        update={
            "blocks": settings.blocks if of.blocks is None else of.blocks,
            "seed": given if seed is None else seed,
        }
    )


def variant_ldm(settings: Settings, name: str) -> LDM:
    """Section `ldm` as the variant changes it."""
    of = settings.entry("variants", name, Variant)
    return settings.section(LDM, of.ldm, f"{key_of('variants', name)}.ldm")
