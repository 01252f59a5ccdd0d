"""The schema of params.yaml: every key with its type, its range and what it cannot go with.

What the values mean stands beside them in params.yaml. A validator of ours raises "name: mend"
about the field `name`; `config` makes the message of it.
"""

import math
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Query = Literal["first_block", "latent", "pooled", "embedding"]
Exclude = Literal["none", "self", "group"]


class Checked(BaseModel):
    """No unknown key, no conversion of types, no change after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Checked):
    """Section `data`: which images, and how they are cut to size and split."""

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


class VQGAN(Checked):
    """Section `vqgan`: the first stage and its training."""

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


class Latents(Checked):
    """Section `latents`: what is encoded."""

    mirrors: bool


class Encoder(Checked):
    """Section `encoder`: what sees an image as a whole."""

    kind: Literal["efficientnet_lite0", "clip"]
    weights: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    size: Annotated[int, Field(ge=64)]

    @model_validator(mode="after")
    def _possible(self):
        if self.kind == "clip" and self.weights is None:
            raise ValueError("weights: the folder of its config.json and model.safetensors")
        if self.kind == "clip" and self.sha256 is None:
            raise ValueError("sha256: that of model.safetensors is needed, from who published it")
        return self


class Index(Checked):
    """Section `index`: the search structure over the train queries."""

    kind: Literal["auto", "exact", "hashed", "tree", "faiss_flat", "faiss_ivf", "faiss_hnsw"]
    exact_below: Count
    tree_above: Count
    leaves: Positive | None
    searched: Rate
    reorder: Positive
    part_mb: Positive


class LDM(Checked):
    """Section `ldm`: the denoiser and its training."""

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


class Sample(Checked):
    """Section `sample`: how images are drawn."""

    images: Annotated[int, Field(ge=10)] | None  # fewer tell no distance
    sampler: Literal["ddpm", "ddim", "dpmsolver++", "heun"]
    steps: Positive
    batch: Positive


class Judge(Checked):
    """Section `judge`: the networks whose features the scores compare."""

    size: Annotated[int, Field(ge=64)]
    inception: str | None
    batch: Positive


class Retrieval(Checked):
    """One neighbour table: what is looked up, how many are kept, what is never kept."""

    k: Positive
    query: Query | Literal["random"]
    exclude: Exclude
    share: Rate
    correct_hubs: bool


class PartialRetrieval(Checked):
    """An entry of `retrievals`: what it leaves out, the knobs at the top say."""

    k: Positive | None = None
    query: Query | Literal["random"] | None = None
    exclude: Exclude | None = None
    share: Rate = 1.0
    correct_hubs: bool = False


class Patch(Checked):
    """A size of patches to train on: parts of a side of the image, and its share of the steps."""

    parts: Positive
    share: Rate


class Variant(Checked):
    """One denoiser to train: what it conditions on, and what it changes in `ldm`."""

    context: str
    space: Literal["latent", "pixel"] = "latent"
    network: Literal["unet", "ddpmpp", "patch_dm"] = "unet"
    neighbours: Literal["none", "stack", "set", "tokens", "both"] = "none"
    position: bool = False
    previous: bool = False
    halo: Count = 0
    overview: bool = False
    cascade: bool = False
    coordinates: bool = False
    patches: list[Patch] = []
    collage: Count = 0
    blocks: Positive | None = None
    seed: Count | None = None
    ldm: dict = {}

    @property
    def told_before(self) -> bool:
        """Whether a block is told of what was drawn before it."""
        return self.previous or self.cascade

    @model_validator(mode="after")
    def _possible(self):
        if (self.neighbours == "none") != (self.context == "latents"):
            raise ValueError(
                f"context: '{self.context}' does not go with neighbours '{self.neighbours}'; a row"
                " without neighbours reads 'latents', any other 'neighbours/<retrieval>'"
            )
        if self.told_before and self.neighbours not in ("none", "stack"):
            told = "cascade" if self.cascade else "previous"
            raise ValueError(f"{told}: goes with neighbours 'none' or 'stack' only")
        if self.cascade and (
            self.network != "unet"
            or self.blocks == 1
            or self.halo
            or self.overview
            or self.previous
            or self.coordinates
        ):
            raise ValueError(
                "cascade: goes with network 'unet' and more than one block, and with no other thing"
                " that blocks are told of each other"
            )
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
            or self.neighbours in ("tokens", "both")
            or self.halo
            or self.overview
            or self.position
            or self.previous
            or self.coordinates
            or self.patches
        ):
            raise ValueError(
                "network: 'patch_dm' goes with 'blocks: 1' and, beside neighbours by stack or set,"
                " nothing else"
            )
        if self.overview and (self.halo or self.previous or self.coordinates or self.patches):
            raise ValueError("overview: cannot go with halo, previous, coordinates or patches")
        if self.overview and self.network != "unet":
            raise ValueError("overview: goes with network 'unet' only")
        if self.previous and self.coordinates:
            raise ValueError("previous: cannot go with coordinates")
        if self.previous and self.halo:
            raise ValueError("previous: cannot go with a halo, whose blocks advance together")
        return self


class Row(Checked):
    """One row of the table: images drawn with a variant's weights, and what is forgiven them."""

    variant: str
    context: str
    seed: Count | None = None
    sample: dict = {}
    may_copy: bool = False


class Ablations(Checked):
    """The rows of stages/ablations/params.yaml, and how they are put side by side."""

    tables: dict[str, list[str]] = {}
    retrievals: dict[str, PartialRetrieval] = {}
    variants: dict[str, Variant] = {}
    rows: dict[str, Row] = {}


class Params(Checked):
    """All of params.yaml. A stage's empty folder (tests) holds only what the stage declares."""

    preset: str = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = None
    k: Positive = None
    blocks: Positive = None
    query: Query | Literal["random"] = None
    exclude: Exclude = None
    threads: Positive = None
    checkpoint: Annotated[float, Field(gt=0)] = 300
    queries: Positive = None
    data: dict = None
    vqgan: dict = None
    latents: dict = None
    encoder: dict = None
    index: dict = None
    ldm: dict = None
    sample: dict = None
    judge: dict = None
    retrievals: dict[str, PartialRetrieval] = None
    variants: dict[str, Variant] = None
    rows: dict[str, Row] = None
    presets: dict[str, dict[str, dict]] = None
    ablations: Ablations = Ablations()


SECTIONS = {
    "data": Data,
    "vqgan": VQGAN,
    "latents": Latents,
    "encoder": Encoder,
    "index": Index,
    "ldm": LDM,
    "sample": Sample,
    "judge": Judge,
}
