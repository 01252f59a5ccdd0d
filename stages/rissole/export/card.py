"""The model card: what an exported model is, how to use it, how good it is, what it must not."""

from dataclasses import dataclass
from pathlib import Path

from rissole.core import config, files
from rissole.dataset.settings import Data
from rissole.denoiser.settings import Variant, find_variant
from rissole.drawing.settings import Row, row_sample
from rissole.harness import run
from rissole.harness.errors import InputError
from rissole.judging import scores
from rissole.report import gallery
from rissole.results.objections import objections
from rissole.retrieval.settings import find_retrieval

MEANS = {
    "own_query": "they are their own query images, painted anew",
    "pasted": "they are pasted of parts of their neighbours",
    "copied": "more of them are named copies of training images than of true images are",
    "collage": "they are taken for images whose blocks were shuffled",
    "colour": "the colours of their blocks do not go together",
    "seams": "borders between blocks show",
    "recall": "they leave out much of what true images show",
}


@dataclass(frozen=True)
class Measured:
    """What the stages measured of a row: content of their files in metrics/."""

    fid: dict
    audit: dict
    reference: dict

    @property
    def objections(self) -> list[str]:
        """The names of the measures that the row fails."""
        return objections(self.audit, self.fid, self.reference)


def read_measured(metrics: Path, row: str) -> Measured:
    """What was measured of a row.

    Raises:
        InputError: it was not drawn, audited and scored yet.
    """
    paths = [files.measured(metrics, kind, row) for kind in ("fid", "audit")]
    paths += [metrics / "reference.json"]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError(
            f"row {row} has not been drawn, audited and scored yet ({missing[0]} does not exist);"
            f" run `dvc repro {run.address('compute_fid', row)}`"
        )
    return Measured(*map(files.read_json, paths))


def page(
    row: str,
    of: Row,
    settings: config.Settings,
    measured: Measured,
    packages: list[str],
    size: int,
    data_card: Path,
) -> str:
    """The card as Markdown, with the header that model hubs read.

    Args:
        row: its name.
        of: how it is drawn.
        settings: of params.yaml.
        measured: what was measured of it.
        packages: what must be installed, as lines for pip.
        size: of the folder, in bytes.
        data_card: of the images.
    """
    variant, sample = find_variant(settings, of.variant), row_sample(settings, row)
    return f"""---
library_name: diffusers
license: other
license_name: mit-but-data-as-stated
license_link: README.md#data
pipeline_tag: unconditional-image-generation
tags:
- rissole
- retrieval-augmented-generation
- latent-diffusion
---

# {row}

A small retrieval-guided latent diffusion model of {_side(settings)} pixel images, after RISSOLE
([arXiv 2408.17095](https://arxiv.org/abs/2408.17095)):
{gallery.describe(settings, row)}.
Drawn by {sample.sampler} in {sample.steps} steps. {size / 1e6:.1f} MB.

## Use

Python 3.11 or later, and `pip install -r requirements.txt` in this folder:

{_indented(packages)}

```python
import sys

sys.path.insert(0, "DIR")  # this folder
from rissole_pipeline import RissolePipeline

pipe = RissolePipeline.from_pretrained("DIR")
pipe(num_images=16, seed=0).images  # a list of PIL images
{_retrieving(variant, settings, of)}```

`pipe.to("cuda")` moves it, `pipe.set_progress_bar_config(disable=True)` silences it, and
`help(pipe.__call__)` says the rest. With the folder on `sys.path` and `rissole_pipeline` imported,
`DiffusionPipeline.from_pretrained("DIR", custom_pipeline="rissole_pipeline",
trust_remote_code=True)` loads the same.

Images are those of the project's own run bit by bit, on a CPU of the same kind, for the same seed
(by default the row's), with `torch.set_num_threads(1)` and whole batches of
{sample.batch}. No file of the folder is a pickle, and damage to one is noticed.

To publish it: `hf upload NAME DIR` (think of the data first, below). Who wants it from there:
`hf download NAME --local-dir DIR`.

## Scores

{_scores(measured)}

## Audit

{_audit(measured)}

## Data

{_data_card(data_card)}

**The folder holds the training images** in small: `database/` has the codes of all of them, which
the first stage decodes, as it must to tell the denoiser of neighbours. Hand it on only where you
may hand on the images.

## What it is for, and what not

For research on retrieval and diffusion, and for drawing images like those above. It knows nothing
else: queries and folders of other kinds are encoded by a first stage that never saw such images,
and told to a denoiser that did not either, so the results show at best their colours and large
shapes. Drawn images may resemble training images, or those of your folder: look at the audit above
and at what `pipe(...).leaks` says. Whoever is shown in the training images has a say in what is
made of them. It has no filter of any kind.

## Licence

The code and the weights are under the MIT licence (LICENSE); what the data allow stands above.
"""


def _side(settings: config.Settings) -> str:
    return f"{settings.section(Data).size} x {settings.section(Data).size}"


def _retrieving(variant: Variant, settings: config.Settings, of: Row) -> str:
    """The lines of code that take a query, where the model can."""
    if variant.neighbours == "none":
        return ""
    table = find_retrieval(settings, of.context.removeprefix("neighbours/"))
    if table.query == "embedding":
        return ""
    return """pipe(num_images=4, query="a.png")  # told its neighbours; PIL images and lists will do
pipe.retrieve_from("FOLDER")  # neighbours from your own images from now on, nothing is trained
drawn = pipe(num_images=16, seed=0)
drawn.images, drawn.neighbours, drawn.leaks  # images, files they were told, copies found of them
"""


def _indented(packages: list[str]) -> str:
    return "\n".join(f"    {package}" for package in packages)


def _scores(measured: Measured) -> str:
    fid, reference = measured.fid, measured.reference
    lines = ["| measure | this model | true training images |", "|:--|--:|--:|"]
    for key in scores.frechet_keys(fid):
        of, true = fid[key], reference[key]
        lines.append(f"| {key} against held-out images | {of['val']:.1f} | {true['floor']:.1f} |")
        if "uncopied" in of:
            lines.append(
                f"| the same above that floor, copies left out | {of['uncopied']:.1f} | 0 |"
            )
    short = next(name for name in scores.SHORT.values() if name in fid)
    for name in ("precision", "recall", "coverage"):
        lines.append(f"| {name} | {fid[short][name]:.2f} | |")
    first = scores.frechet_keys(fid)[0]
    what = "" if first == "fid" else f"`{first}` is a Frechet distance, but not FID. "
    return "\n".join(lines) + (
        f"\n\n{what}Of {fid['images']:,} drawn images; lower is better, but for precision, recall"
        " and coverage. "
        + ("" if "uncopied" in fid[first] else "No image is vouched for to be no copy. ")
        + _objections(measured)
    )


def _objections(measured: Measured) -> str:
    found = [f"`{name}` ({MEANS[name]})" for name in measured.objections]
    return f"Objections: {', '.join(found)}." if found else "No measure objects to them."


def _audit(measured: Measured) -> str:
    audit = measured.audit
    copied = audit["copied"]
    lines = [
        f"- {copied['rate']:.1%} of the drawn images are named copies of training images by"
        f" {copied['tests']} of {copied['of']} tests; of held-out images {copied['null']:.1%}.",
    ]
    if "own_query" in audit:
        own = audit["own_query"]
        lines.append(
            f"- {own['rate']:.1%} are nearest to their own query image; of held-out images"
            f" {own['null']:.1%} to the one most like a query of theirs."
        )
    found = accusations(audit)
    if found:
        lines.append(f"- **The images are accused of copying: {found}.** Do not take them for new.")
    return "\n".join(lines)


def accusations(audit: dict) -> str:
    """What an audit accuses the images of; empty where it does not."""
    return " and ".join(MEANS[name] for name in audit["accused"])


def _data_card(path: Path) -> str:
    """The data card of the split, without its own heading."""
    if not path.exists():
        raise InputError(f"{path} does not exist; `dvc repro split_data` makes it")
    return path.read_text("utf-8").partition("\n")[2].strip()
