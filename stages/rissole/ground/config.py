"""params.yaml and the ablations', read and checked as a whole: what the stages know of them.

A value is looked up in the shared section, over which the chosen preset's section is laid, over
which a variant's own `ldm` or a row's own `sample` is laid. What one of them leaves out, it takes
over; a mapping inside a section, such as `quantiser`, is replaced as a whole. An ablation is named
with `ablations/` before.
"""

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from rissole.ground import derived
from rissole.ground.derived import Extent
from rissole.ground.errors import InputError
from rissole.ground.schema import (
    FSQ,
    LDM,
    SECTIONS,
    VQ,
    VQGAN,
    Ablations,
    Params,
    PartialRetrieval,
    Retrieval,
    Row,
    Sample,
    Variant,
)

import yaml
from pydantic import BaseModel, ValidationError

ABLATIONS = Path("stages/ablations/params.yaml")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes `1e-05`, as `dvc exp run -S` writes it, for a string; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class Settings:
    """The checked content of params.yaml; each attribute is a knob or a section."""

    def __init__(self, params: Params, extent: Extent | None = None):
        self._params, self._extent = params, extent

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        if name in SECTIONS:
            return self._section(name)
        value = getattr(self._params, name)
        if value is None:
            raise InputError(f"params.yaml: the key '{name}' is missing; put it back")
        return value

    def under(self, preset: str) -> "Settings":
        """The same file with another preset chosen."""
        return Settings(self._params.model_copy(update={"preset": preset}), self._extent)

    def fitted(self, extent: Extent) -> "Settings":
        """The same with what is left to the images filled in."""
        return Settings(self._params, extent)

    @property
    def variants(self) -> dict[str, Variant]:
        """The denoisers to train, in their order."""
        return self.__getattr__("variants")

    @property
    def ablations(self) -> Ablations:
        """The ablations: what is in them and how it is put side by side."""
        return self._params.ablations

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of the table, in their order."""
        return self.__getattr__("rows")

    def row(self, name: str) -> Row:
        """One row of the table."""
        return _choose(self._every("rows"), name, "rows")

    def row_sample(self, name: str) -> Sample:
        """Section `sample` as the row changes it."""
        return self._section("sample", f"{_key('rows', name)}.sample", self.row(name).sample)

    def repeats(self, names: Iterable[str]) -> list[list[str]]:
        """Those of the named rows that were trained alike but for the seed, together."""
        groups: dict[tuple, list[str]] = {}
        for name in names:
            row = self.row(name)
            variant = self.variant(row.variant).model_copy(update={"seed": None})
            alike = row.model_copy(update={"variant": ""})
            key = variant.model_dump_json(), alike.model_dump_json()
            groups.setdefault(key, []).append(name)
        return [group for group in groups.values() if len(group) > 1]

    def redraws(self, names: Iterable[str]) -> list[list[str]]:
        """Those of the named rows that are drawn alike with the same weights, but for the seed."""
        groups: dict[str, list[str]] = {}
        for name in names:
            key = self.row(name).model_copy(update={"seed": None}).model_dump_json()
            groups.setdefault(key, []).append(name)
        return [group for group in groups.values() if len(group) > 1]

    def variant(self, name: str) -> Variant:
        """One denoiser to train, its number of blocks per side and its seed filled in."""
        variant = _choose(self._every("variants"), name, "variants")
        return variant.model_copy(
            update={
                "blocks": self.blocks if variant.blocks is None else variant.blocks,
                "seed": self.seed if variant.seed is None else variant.seed,
            }
        )

    def variant_ldm(self, name: str) -> LDM:
        """Section `ldm` as the variant changes it."""
        return self._section("ldm", f"{_key('variants', name)}.ldm", self.variant(name).ldm)

    def retrieval(self, name: str) -> Retrieval:
        """One neighbour table; what it leaves out, the knobs at the top say."""
        own = _choose(self._every("retrievals"), name, "retrievals")
        return Retrieval(
            k=own.k or self.k,
            query=own.query or self.query,
            exclude=own.exclude or self.exclude,
            share=own.share,
            correct_hubs=own.correct_hubs,
        )

    def check_counts(self, train: int) -> None:
        """Refuse what asks for more train images than there are; knobs left out are passed over.

        Raises:
            InputError: with the key, and how many images it takes.
        """
        params, asked = self._params, {"k": self._params.k}
        if _complete(params, self, "sample"):
            asked["sample.images"] = self.sample.images
        tables = self._every("retrievals")
        asked |= {f"{_key('retrievals', name)}.k": of.k for name, of in tables.items()}
        for key, number in asked.items():
            if number is not None and number >= train:
                raise InputError(
                    f"params.yaml: {key} is {number}: there are only about {train} train images;"
                    f" lower {key}, or give more images, {number + 1} of them for training"
                )

    def _every(self, section: str) -> dict:
        """The entries of `variants`, `rows` or `retrievals`, the ablations among them."""
        main, ablations = getattr(self._params, section), getattr(self.ablations, section)
        return (main or {}) | {f"ablations/{name}": of for name, of in ablations.items()}

    @cached_property
    def _chosen(self) -> dict[str, dict]:
        if self._params.presets is None:
            return {}
        return _choose(self._params.presets, self.preset, "presets", "preset")

    def _section(self, name: str, where: str | None = None, over: dict | None = None):
        shared, preset = getattr(self._params, name), self._chosen.get(name)
        if shared is None and preset is None:
            raise InputError(f"params.yaml: the key '{name}' is missing; put it back")
        layers = {name: shared, f"presets.{self._params.preset}.{name}": preset, where: over}
        section = _merged(SECTIONS[name], layers)
        return section if self._extent is None else derived.fill(section, self._extent)


def read(path: Path = Path("params.yaml")) -> Settings:
    """Read and check all of params.yaml, the presets not chosen included.

    Raises:
        InputError: naming the key, its value and the mend, where a key is unknown, mistyped, out
            of range or of the wrong type, or where values cannot go together.
    """
    content, ablations = _load(path), path.parent / ABLATIONS
    if ablations.exists():
        content |= _load(ablations)
    try:
        try:
            settings = Settings(Params.model_validate(content))
        except ValidationError as error:
            raise _explained(error, Params, {}) from None
        _check_together(settings)
    except InputError as error:
        where = f"{ABLATIONS}: ablations."
        raise InputError(str(error).replace("params.yaml: ablations.", where)) from None
    return settings


def _load(path: Path) -> dict:
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"{path} is not in this folder; run from the project's top") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys; take it back from git")
    return content


def _check_together(settings: Settings) -> None:
    """Check what no single section shows; sections that a cut-down file leaves out are skipped."""
    params = settings._params
    for preset in params.presets or {}:
        under = settings.under(preset)
        unknown = [name for name in under._chosen if name not in SECTIONS]
        if unknown:
            raise InputError(
                f"params.yaml: presets.{preset}.{unknown[0]}: no such section, only"
                f" {', '.join(SECTIONS)}{_near(unknown[0], SECTIONS)}"
            )
        for name in SECTIONS:
            if _complete(params, under, name):
                under._section(name)
    if params.presets is not None and params.preset is not None:
        settings._chosen  # noqa: B018 (raises on an unknown preset)
    variants, retrievals = settings._every("variants"), settings._every("retrievals")
    for name, variant in variants.items():
        key = _key("variants", name)
        if _complete(params, settings, "ldm"):
            ldm = settings._section("ldm", f"{key}.ldm", variant.ldm)
            name = "halo" if variant.halo else "overview"
            if (variant.halo or variant.overview) and ldm.share_timestep != "image":
                raise InputError(
                    f"params.yaml: {key}.{name} is {getattr(variant, name)}: it needs"
                    f" 'ldm: {{share_timestep: image}}' in the variant, not '{ldm.share_timestep}',"
                    " as what it shows must be as noisy as the block"
                )
        _check_context(key, variant.context, retrievals if params.retrievals else None)
        _check_told(settings, key, variant.context, variant)
    for name, row in settings._every("rows").items():
        _check_context(_key("rows", name), row.context, retrievals if params.retrievals else None)
        _check_row(settings, _key("rows", name), row, variants if params.variants else None)
    if _complete(params, settings, "data") and _complete(params, settings, "vqgan"):
        data = settings.data
        for side in derived.SIDES if data.size is None else [data.size]:
            _check_sides(settings, variants, side)
    if _complete(params, settings, "sample") and params.queries is not None:
        images = settings.sample.images
        if images is not None and images > params.queries:
            raise InputError(
                f"params.yaml: sample.images is {images}: there are only `queries`"
                f" {params.queries}; lower it, or raise queries"
            )
    if _complete(params, settings, "data") and settings.data.images is not None:
        data = settings.data
        settings.check_counts(round(data.images * (1 - data.validation)))


def _check_context(key: str, context: str, retrievals: dict | None) -> None:
    kind, _, table = context.partition("/")
    if kind not in ("neighbours", "latents"):
        raise InputError(
            f"params.yaml: {key}.context is '{context}': must be 'latents', or 'neighbours/' and"
            " one of the retrievals"
        )
    if kind == "neighbours" and retrievals is not None:
        _choose(retrievals, table, "retrievals", f"{key}.context")


def _check_told(settings: Settings, key: str, context: str, variant: Variant) -> None:
    params = settings._params
    if variant.neighbours != "tokens" or params.retrievals is None or params.query is None:
        return
    table = context.partition("/")[2]
    query = settings._every("retrievals")[table].query or params.query
    if query != "embedding":
        raise InputError(
            f"params.yaml: {key}.context is '{context}': retrieves by '{query}'; tokens are the"
            " neighbours' embeddings, which come with a table of 'query: embedding' only"
        )


def _check_row(settings: Settings, key: str, row: Row, variants: dict[str, Variant] | None) -> None:
    params, variant = settings._params, None
    if variants is not None:
        variant = _choose(variants, row.variant, "variants", f"{key}.variant")
        if (row.context == "latents") != (variant.context == "latents"):
            raise InputError(
                f"params.yaml: {key}.context is '{row.context}': variant {row.variant} was trained"
                f" with '{variant.context}'; a row retrieves if its variant does, and only then"
            )
        _check_told(settings, key, row.context, variant)
    if _complete(params, settings, "sample") and _complete(params, settings, "ldm"):
        sample = settings._section("sample", f"{key}.sample", row.sample)
        ldm = settings._section("ldm", over=variant.ldm if variant else None)
        steps, timesteps = sample.steps, ldm.timesteps
        if sample.sampler == "heun" and ldm.schedule != "lognormal":
            where = f"{key}.sample" if "sampler" in row.sample else "sample"
            raise InputError(
                f"params.yaml: {where}.sampler is 'heun': goes with ldm.schedule 'lognormal', not"
                f" '{ldm.schedule}', whose first step it would blow up; take ddim or ddpm"
            )
        if (
            timesteps % steps and ldm.schedule != "lognormal"
        ):  # in between, steps are uneven, and diffusers' DDIM would go astray
            where = f"{key}.sample" if "steps" in row.sample else "sample"
            raise InputError(
                f"params.yaml: {where}.steps is {steps}: must divide ldm.timesteps {timesteps};"
                f" take one of {[n for n in range(1, timesteps + 1) if timesteps % n == 0]}"
            )


def _check_sides(settings: Settings, variants: dict[str, Variant], size: int) -> None:
    factor = 2 ** len(settings.vqgan.widths)
    if size % factor:
        raise InputError(
            f"params.yaml: data.size is {size}: must be a multiple of {factor}, by which the"
            f" {len(settings.vqgan.widths)} vqgan.widths shrink it"
        )
    side = size // factor
    possible = [parts for parts in range(2, side // 2 + 1) if side % parts == 0]
    splits = {"blocks": (settings._params.blocks, possible)}
    for name, of in variants.items():
        splits[f"{_key('variants', name)}.blocks"] = (of.blocks, [1, *possible])
    for key, (
        blocks,
        choice,
    ) in splits.items():  # of pixels, too: audits compare those of latents
        if blocks is not None and blocks not in choice:
            raise InputError(
                f"params.yaml: {key} is {blocks}: the latent's side {side} (data.size {size} /"
                f" {factor}) is cut into equal blocks of 2 or more a side; take one of {choice}"
            )
    for name, of in variants.items():
        if of.network == "ddpmpp" and _complete(settings._params, settings, "ldm"):
            key = _key("variants", name)
            parts = settings._params.blocks if of.blocks is None else of.blocks
            seen = (size if of.space == "pixel" else side) // (parts or 1)
            levels = len(settings._section("ldm", f"{key}.ldm", of.ldm).widths)
            if seen % _halved(of, levels):
                raise InputError(
                    f"params.yaml: {key}.network is '{of.network}': its {levels} levels halve sides"
                    f" that {_halved(of, levels)} divides, and not {seen}; take fewer ldm.widths or"
                    " other patches"
                )


def _halved(variant: Variant, levels: int) -> int:
    """What must divide the sides that a network of so many levels sees, patches and all."""
    return math.lcm(1, *(patch.parts for patch in variant.patches)) * 2 ** (levels - 1)


def _complete(params: Params, settings: Settings, name: str) -> bool:
    shared, preset = getattr(params, name), settings._chosen.get(name) if params.preset else None
    return shared is not None or preset is not None


def _merged(model: type[BaseModel], layers: dict[str | None, dict | None]):
    merged, origin = {}, {}
    for where, layer in layers.items():
        merged |= layer or {}
        origin |= dict.fromkeys(layer or {}, where)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        home = [layer for layer in layers if layer][0]
        where = {key: f"{origin.get(key, home)}.{key}" for key in [*model.model_fields, *merged]}
        raise _explained(error, model, where) from None


def _explained(error: ValidationError, model: type[BaseModel], where: dict[str, str]) -> InputError:
    """The first fault of a ValidationError as a line with key, value and mend.

    A validator of ours raises "name: mend" about the field `name` of its model.
    """
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"] if part not in ("fsq", "vq")]
    value, text = fault["input"], fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        named, _, text = text.partition(": ")
        path.append(named)
        value = value.get(named) if isinstance(value, dict) else getattr(value, named)
    key = ".".join([where.get(path[0], path[0]), *path[1:]])
    if fault["type"] == "extra_forbidden":
        near = _near(path[-1], _fields(model)) or "; remove it"
        return InputError(f"params.yaml: {key}: no such key{near}")
    if fault["type"] == "missing":
        return InputError(f"params.yaml: {key}: the key is missing; put it back")
    return InputError(f"params.yaml: {key} is {value!r}: {text[0].lower()}{text[1:]}")


def _fields(model: type[BaseModel]) -> list[str]:
    nested = (
        (PartialRetrieval, Variant, Row) if model is Params else (FSQ, VQ) if model is VQGAN else ()
    )
    return [name for part in (model, *nested) for name in part.model_fields]


def _choose(choices: dict, name: str, section: str, key: str | None = None):
    if name in choices:
        return choices[name]
    said = f"{key} is '{name}': " if key else f"no '{name}' under {section}; "
    own = [choice for choice in choices if not choice.startswith("ablations/")]
    more = f", or the {len(choices) - len(own)} of ablations/" if len(own) < len(choices) else ""
    raise InputError(
        f"params.yaml: {said}choose among {', '.join(own)}{more}{_near(name, choices)}"
    )


def _key(section: str, name: str) -> str:
    """Where an entry stands in its file."""
    family, _, short = name.rpartition("/")
    return ".".join([*([family] if family else []), section, short])


def _near(name: str, names) -> str:
    near = get_close_matches(name, list(names), 1)
    return f"; did you mean '{near[0]}'?" if near else ""
