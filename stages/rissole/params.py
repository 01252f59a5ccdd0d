"""The whole of params.yaml and of the ablations' file, checked before a stage starts.

No stage depends on this module, as all it does is to refuse: what a stage reads, the models of its
own packages check again.
"""

import math
from pathlib import Path
from typing import Literal

from rissole.core import config
from rissole.core.config import Checked, Knobs, Settings, choose, explained, key_of
from rissole.dataset.settings import SIDES, Data
from rissole.denoiser.settings import LDM, Variant, variant_ldm
from rissole.drawing.settings import Row, Sample, row_sample
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.judging.settings import JudgeSettings
from rissole.latent.settings import LatentsSettings
from rissole.pretrained.settings import EncoderSettings
from rissole.retrieval.settings import Exclude, Index, PartialRetrieval, Query

from pydantic import ValidationError

SECTIONS = (
    Data,
    VQGANSettings,
    LatentsSettings,
    EncoderSettings,
    Index,
    LDM,
    Sample,
    JudgeSettings,
)
NAMES = [section.SECTION for section in SECTIONS]


class Ablations(Checked):
    """The rows of stages/ablations/params.yaml, and how they are put side by side."""

    seeds: list[int] = [0]
    tables: dict[str, list[str]] = {}
    retrievals: dict[str, PartialRetrieval] = {}
    variants: dict[str, Variant] = {}
    rows: dict[str, Row] = {}


class Params(Knobs):
    """All of params.yaml. A stage's empty folder (tests) holds only what the stage declares."""

    query: Literal[Query, "random"] | None = None  # not a union, whose parts errors would name
    exclude: Exclude | None = None
    defaults: dict[str, dict] | None = None
    data: dict | None = None
    vqgan: dict | None = None
    latents: dict | None = None
    encoder: dict | None = None
    index: dict | None = None
    ldm: dict | None = None
    sample: dict | None = None
    judge: dict | None = None
    retrievals: dict[str, PartialRetrieval] | None = None
    variants: dict[str, Variant] | None = None
    rows: dict[str, Row] | None = None
    presets: dict[str, dict[str, dict]] | None = None
    ablations: Ablations = Ablations()


def read(path: Path = Path("params.yaml")) -> Settings:
    """Read and check all of params.yaml, the presets not chosen included.

    Raises:
        InputError: naming the key, its value and the mend, where a key is unknown, mistyped, out
            of range or of the wrong type, or where values cannot go together.
    """
    settings = config.read(path)
    try:
        Params.model_validate(settings.content)
    except ValidationError as error:
        raise explained(error, Params, {}) from None
    try:
        _check_together(settings)
    except InputError as error:
        where = f"{config.ABLATIONS}: ablations."
        raise InputError(str(error).replace("params.yaml: ablations.", where)) from None
    return settings


def entries(settings: Settings, kind: str) -> list[str]:
    """The names of all entries of `variants`, `rows` or `retrievals`, the ablations' included."""
    ablations = (settings.content.get("ablations") or {}).get(kind) or {}
    own = settings.content.get(kind) or {}
    return [*own, *(f"ablations/{name}" for name in ablations)]


def _check_together(settings: Settings) -> None:
    """Check what no single section shows; what a cut-down file leaves out is skipped."""
    for preset in settings.content.get("presets") or {}:
        _check_preset(settings.under(preset), preset)
    if settings.content.get("presets") is not None and settings.knobs.preset is not None:
        choose(settings.content["presets"], settings.preset, "presets", "preset")
    elif settings.content.get("presets") is not None:
        return
    for name in entries(settings, "variants"):
        _check_variant(settings, name)
    for name in entries(settings, "rows"):
        _check_row(settings, name)
    if settings.has(Data) and settings.has(VQGANSettings):
        size = settings.section(Data).size
        for side in SIDES if size is None else [size]:
            _check_sides(settings, side)
    if settings.has(Sample) and settings.knobs.queries is not None:
        images = settings.section(Sample).images
        if images is not None and images > settings.queries:
            raise InputError(
                f"params.yaml: sample.images is {images}: there are only `queries`"
                f" {settings.queries}; lower it, or raise queries"
            )
    if settings.has(Data) and settings.section(Data).images is not None:
        data = settings.section(Data)
        settings.check_counts(round(data.images * (1 - data.validation)))


def _check_preset(settings: Settings, preset: str) -> None:
    for where in ("defaults", f"presets.{preset}"):
        part, _, name = where.partition(".")
        sections = settings.content.get(part) or {}
        for unknown in sorted((sections[name] if name else sections).keys() - set(NAMES)):
            try:
                choose(dict.fromkeys(NAMES), unknown, where)
            except InputError as error:
                raise InputError(str(error).replace("no '", f"{where}.{unknown}: no '")) from None
    for section in SECTIONS:
        if settings.has(section):
            settings.section(section)


def _check_variant(settings: Settings, name: str) -> None:
    key, variant = key_of("variants", name), settings.entry("variants", name, Variant)
    if settings.has(LDM):
        ldm = variant_ldm(settings, name)
        if variant.halo and ldm.share_timestep != "image":
            raise InputError(
                f"params.yaml: {key}.halo is {variant.halo}: it needs"
                f" 'ldm: {{share_timestep: image}}' in the variant, not '{ldm.share_timestep}',"
                " as what it shows must be as noisy as the block"
            )
    _check_context(settings, key, variant.context)
    _check_tokens(settings, key, variant.context, variant)


def _check_context(settings: Settings, key: str, context: str) -> None:
    kind, _, table = context.partition("/")
    if kind not in ("neighbours", "latents"):
        raise InputError(
            f"params.yaml: {key}.context is '{context}': must be 'latents', or 'neighbours/' and"
            " one of the retrievals"
        )
    if kind == "neighbours" and settings.content.get("retrievals") is not None:
        tables = dict.fromkeys(entries(settings, "retrievals"))
        choose(tables, table, "retrievals", f"{key}.context")


def _check_tokens(settings: Settings, key: str, context: str, variant: Variant) -> None:
    known = settings.content.get("retrievals") is not None and settings.knobs.query is not None
    if variant.neighbours != "tokens" or not known:
        return
    own = settings.entry("retrievals", context.partition("/")[2], PartialRetrieval)
    query = own.query or settings.query
    if query != "embedding":
        raise InputError(
            f"params.yaml: {key}.context is '{context}': retrieves by '{query}'; tokens are the"
            " neighbours' embeddings, which come with a table of 'query: embedding' only"
        )


def _check_row(settings: Settings, name: str) -> None:
    key, of, variant = key_of("rows", name), settings.entry("rows", name, Row), None
    _check_context(settings, key, of.context)
    if settings.content.get("variants") is not None:
        variants = dict.fromkeys(entries(settings, "variants"))
        choose(variants, of.variant, "variants", f"{key}.variant")
        variant = settings.entry("variants", of.variant, Variant)
        if (of.context == "latents") != (variant.context == "latents"):
            raise InputError(
                f"params.yaml: {key}.context is '{of.context}': variant {of.variant} was trained"
                f" with '{variant.context}'; a row retrieves if its variant does, and only then"
            )
        _check_tokens(settings, key, of.context, variant)
    if not (settings.has(Sample) and settings.has(LDM)):
        return
    sample = row_sample(settings, name)
    ldm = variant_ldm(settings, of.variant) if variant else settings.section(LDM)
    steps, timesteps = sample.steps, ldm.timesteps
    if sample.sampler == "heun" and ldm.schedule != "lognormal":
        where = f"{key}.sample" if "sampler" in of.sample else "sample"
        raise InputError(
            f"params.yaml: {where}.sampler is 'heun': goes with ldm.schedule 'lognormal', not"
            f" '{ldm.schedule}', whose first step it would blow up; take ddim or ddpm"
        )
    # In between, steps are uneven, and diffusers' DDIM would go astray.
    if timesteps % steps and ldm.schedule != "lognormal":
        where = f"{key}.sample" if "steps" in of.sample else "sample"
        raise InputError(
            f"params.yaml: {where}.steps is {steps}: must divide ldm.timesteps {timesteps};"
            f" take one of {[n for n in range(1, timesteps + 1) if timesteps % n == 0]}"
        )


def _check_sides(settings: Settings, size: int) -> None:
    levels = len(settings.section(VQGANSettings).widths)
    factor = 2**levels
    if size % factor:
        raise InputError(
            f"params.yaml: data.size is {size}: must be a multiple of {factor}, by which the"
            f" {levels} vqgan.widths shrink it"
        )
    side = size // factor
    possible = [parts for parts in range(2, side // 2 + 1) if side % parts == 0]
    splits = {"blocks": (settings.knobs.blocks, possible)}
    variants = {
        name: settings.entry("variants", name, Variant) for name in entries(settings, "variants")
    }
    for name, of in variants.items():
        splits[f"{key_of('variants', name)}.blocks"] = (of.blocks, [1, *possible])
    for key, (blocks, choice) in splits.items():  # of pixels, too: audits compare those of latents
        if blocks is not None and blocks not in choice:
            raise InputError(
                f"params.yaml: {key} is {blocks}: the latent's side {side} (data.size {size} /"
                f" {factor}) is cut into equal blocks of 2 or more a side; take one of {choice}"
            )
    for name, of in variants.items():
        if of.network == "ddpmpp" and settings.has(LDM):
            parts = settings.knobs.blocks if of.blocks is None else of.blocks
            seen = (size if of.space == "pixel" else side) // (parts or 1)
            levels = len(variant_ldm(settings, name).widths)
            divides = math.lcm(1, *(patch.parts for patch in of.patches)) * 2 ** (levels - 1)
            if seen % divides:
                raise InputError(
                    f"params.yaml: {key_of('variants', name)}.network is 'ddpmpp': its {levels}"
                    f" levels halve sides that {divides} divides, and not {seen}; take fewer"
                    " ldm.widths or other patches"
                )
