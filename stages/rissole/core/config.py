"""Settings: params.yaml in layers, each section checked by the model of the package that reads it.

A section is looked up in `defaults`, over which the chosen preset's section is laid, over which the
section at the top of the file is laid, over which a variant's own `ldm` or a row's own `sample` is
laid. What one of them leaves out, it takes over; a mapping inside a section, such as `quantiser`,
is replaced as a whole. An ablation is named `ablations/<entry>`, or `ablations/<entry>/<seed>`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from rissole.harness.errors import InputError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ABLATIONS = Path("stages/ablations/params.yaml")
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Checked(BaseModel):
    """No unknown key, no conversion of types, no change after the check.

    A validator of ours raises "name: mend" about the field `name`; `explained` makes the message.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Extent:
    """Of the images that a run works with.

    Attributes:
        train: how many there are in the train split.
        side: pixels.
    """

    train: int
    side: int


class Section(Checked):
    """A section of params.yaml, named by `SECTION`."""

    SECTION: ClassVar[str]

    def fitted(self, extent: Extent) -> Self:
        """The same with what it leaves to the images filled in."""
        return self


class Knobs(Checked):
    """What stands alone at the top of params.yaml; None where a cut-down file leaves it out."""

    preset: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    k: Positive | None = None
    blocks: Positive | None = None
    query: str | None = None
    exclude: str | None = None
    threads: Positive | None = None
    checkpoint: Annotated[float, Field(gt=0)] | None = 300
    queries: Positive | None = None


AnySection = TypeVar("AnySection", bound=Section)
Entry = TypeVar("Entry", bound=Checked)


class Settings:
    """The content of params.yaml, and of the ablations' where there is one.

    Args:
        content: of both, nested.
        extent: of the images, where it is known.

    Attributes:
        content: the same.
        knobs: what stands alone at its top.
    """

    def __init__(self, content: dict, extent: Extent | None = None):
        self.content, self._extent = content, extent
        given = {key: content[key] for key in Knobs.model_fields if key in content}
        try:
            self.knobs = Knobs.model_validate(given)
        except ValidationError as error:
            raise explained(error, Knobs, {}) from None

    @property
    def preset(self) -> str:
        """The name of the chosen preset."""
        return self._knob("preset")

    @property
    def seed(self) -> int:
        """Of every random number but the split."""
        return self._knob("seed")

    @property
    def k(self) -> int:
        """Neighbours per image."""
        return self._knob("k")

    @property
    def blocks(self) -> int:
        """Blocks per side of a latent."""
        return self._knob("blocks")

    @property
    def query(self) -> str:
        """What neighbours are looked up by."""
        return self._knob("query")

    @property
    def exclude(self) -> str:
        """What is never a neighbour."""
        return self._knob("exclude")

    @property
    def threads(self) -> int:
        """CPU threads."""
        return self._knob("threads")

    @property
    def checkpoint(self) -> float:
        """Seconds between two checkpoints."""
        return self._knob("checkpoint")

    @property
    def queries(self) -> int:
        """Train rows that are lined up as sampling queries."""
        return self._knob("queries")

    def under(self, preset: str) -> "Settings":
        """The same file with another preset chosen."""
        return Settings(self.content | {"preset": preset}, self._extent)

    def fitted(self, extent: Extent) -> "Settings":
        """The same with what is left to the images filled in."""
        return Settings(self.content, extent)

    def section(
        self, model: type[AnySection], over: dict | None = None, where: str | None = None
    ) -> AnySection:
        """A section as the chosen preset has it, checked.

        Args:
            model: of the section.
            over: what a variant or a row lays over it.
            where: the key of `over`.

        Raises:
            InputError: a key is missing, unknown, or its value is out of range.
        """
        layers = self._layers(model.SECTION) | ({where: over} if over else {})
        if not layers:
            raise InputError(
                f"params.yaml: the key 'defaults.{model.SECTION}' is missing; put it back"
            )
        merged, origin = {}, {}
        for key, layer in layers.items():
            merged |= layer
            origin |= dict.fromkeys(layer, key)
        try:
            section = model.model_validate(merged)
        except ValidationError as error:
            home = next(iter(layers))
            keys = {key: f"{origin.get(key, home)}.{key}" for key in [*model.model_fields, *merged]}
            raise explained(error, model, keys) from None
        return section if self._extent is None else section.fitted(self._extent)

    def has(self, model: type[Section]) -> bool:
        """Whether a file that may be cut down holds the section."""
        return bool(self._layers(model.SECTION))

    def names(self, kind: str) -> list[str]:
        """The entries of `variants`, `rows` or `retrievals`, without the ablations', in order."""
        if kind not in self.content:
            raise InputError(f"params.yaml: the key '{kind}' is missing; put it back")
        return list(self.content[kind] or {})

    def entry(self, kind: str, name: str, model: type[Entry]) -> Entry:
        """One entry of `variants`, `rows` or `retrievals`, checked.

        Args:
            kind: which of them.
            name: of the entry; of the ablations with `ablations/` before it.
            model: of the entry.
        """
        family, short, _ = located(name)
        choices = (self.content.get(family) or {}) if family else self.content
        found = choose(choices.get(kind) or {}, short, f"{family}.{kind}" if family else kind)
        try:
            return model.model_validate(found or {})
        except ValidationError as error:
            where = {key: f"{key_of(kind, name)}.{key}" for key in model.model_fields | found}
            raise explained(error, model, where) from None

    def check_counts(self, train: int) -> None:
        """Refuse what asks for more train images than there are; what is left out is passed over.

        Raises:
            InputError: with the key, and how many images it takes.
        """
        sampled = {
            key: value for of in self._layers("sample").values() for key, value in of.items()
        }
        asked = {"k": self.knobs.k, "sample.images": sampled.get("images")}
        for where, of in (("", self.content), ("ablations.", self.content.get("ablations") or {})):
            tables = of.get("retrievals") or {}
            asked |= {
                f"{where}retrievals.{name}.k": (t or {}).get("k") for name, t in tables.items()
            }
        for key, number in asked.items():
            if number is not None and number >= train:
                raise InputError(
                    f"params.yaml: {key} is {number}: there are only about {train} train images;"
                    f" lower {key}, or give more images, {number + 1} of them for training"
                )

    def _knob(self, name: str) -> Any:
        value = getattr(self.knobs, name)
        if value is None:
            raise InputError(f"params.yaml: the key '{name}' is missing; put it back")
        return value

    def _layers(self, name: str) -> dict[str, dict]:
        layers = {f"defaults.{name}": (self.content.get("defaults") or {}).get(name)}
        if self.content.get("presets") is not None:
            chosen = choose(self.content["presets"], self.preset, "presets", "preset")
            layers[f"presets.{self.preset}.{name}"] = chosen.get(name)
        layers[name] = self.content.get(name)
        return {key: layer for key, layer in layers.items() if layer is not None}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes `1e-05`, as `dvc exp run -S` writes it, for a string; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read(path: Path = Path("params.yaml")) -> Settings:
    """Read params.yaml, and the ablations' beside it; what is looked up is checked then.

    Raises:
        InputError: a file is missing or no YAML.
    """
    content, ablations = _load(path), path.parent / ABLATIONS
    return Settings(content | _load(ablations) if ablations.exists() else content)


def located(name: str) -> tuple[str, str, int | None]:
    """Family (`ablations` or nothing), entry and seed (or None) that a name means."""
    family, slash, rest = name.partition("/")
    if not slash:
        return "", name, None
    entry, _, seed = rest.partition("/")
    return family, entry, int(seed) if seed.isdecimal() else None


def key_of(kind: str, name: str) -> str:
    """Where an entry stands in its file."""
    family, short, _ = located(name)
    return ".".join([*([family] if family else []), kind, short])


def choose(choices: dict, name: str, section: str, key: str | None = None) -> Any:
    """One of some choices. Raises InputError, with the most alike name, where it is none."""
    if name in choices:
        return choices[name]
    said = f"{key} is '{name}': " if key else f"no '{name}' under {section}; "
    raise InputError(f"params.yaml: {said}choose among {', '.join(choices)}{_alike(name, choices)}")


def explained(error: ValidationError, model: type[BaseModel], where: dict[str, str]) -> InputError:
    """The first fault of a ValidationError as a line with key, value and mend.

    Args:
        error: of the model.
        model: that found it.
        where: the full key of each of the model's own; those left out stand at the top.
    """
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"] if part not in ("fsq", "vq")]
    value, text = fault["input"], fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        named, _, text = text.partition(": ")
        path.append(named)
        value = value.get(named) if isinstance(value, dict) else getattr(value, named)
    key = ".".join([where.get(path[0], path[0]), *path[1:]])
    file = "params.yaml"
    if key.startswith("ablations."):
        file = f"{ABLATIONS}"
    if fault["type"] == "extra_forbidden":
        alike = _alike(path[-1], set(_fields(model))) or "; remove it"
        return InputError(f"{file}: {key}: no such key{alike}")
    if fault["type"] == "missing":
        return InputError(f"{file}: {key}: the key is missing; put it back")
    return InputError(f"{file}: {key} is {value!r}: {text[0].lower()}{text[1:]}")


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


def _fields(kind: Any) -> Iterator[str]:
    """The names of all fields of a model and of the models in it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name
            yield from _fields(field.annotation)
    for part in get_args(kind):
        yield from _fields(part)


def _alike(name: str, names) -> str:
    alike = get_close_matches(name, list(names), 1)
    return f"; did you mean '{alike[0]}'?" if alike else ""
