"""The scores of all rows as a table by rank, and those with intervals as plots."""

from collections.abc import Callable
from math import sqrt

from rissole.judging import scores
from rissole.report import figures
from rissole.report.figures import Dot
from rissole.results.measurements import Results
from rissole.results.objections import objections

NORMAL = 1.96  # standard deviations of a 95 % interval
MISSING = "–"


def table(results: Results, numbers: dict[str, dict]) -> tuple[list[str], list[dict]]:
    """The headline numbers of rows and controls, by rank.

    Args:
        results: of the rows.
        numbers: content of metrics/tables.json.

    Returns:
        The headings of the numbers; and of each line `name`, `trained` (no control), `rank`,
        `cells` (a text for each heading) and `objections`.
    """
    first, second = scores.frechet_keys(results.reference)
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "uncopied": ("uncopied", _tenths),
        first: (first, _tenths),
        second: (second, _tenths),
        "against_reconstructions": ("against recon\N{SOFT HYPHEN}structions", _tenths),
        "recall": ("recall", _hundredths),
        "copied": ("copied", _percent),
        "own_query": ("own query", _percent),
        "own_group": ("own group", _percent),
        "latent_seam": ("latent seam", _hundredths),
        "colour": ("colour", _hundredths),
        "collages": ("collages", _percent),
    }
    known = {"uncopied"}.union(*numbers.values())  # which the page ranks by, if it can
    columns = {key: of for key, of in columns.items() if key in known}
    lines = []
    for name in results.ranked():
        fid, audit = results.measured(name)
        trained, ranked = name not in results.controls, "uncopied" in numbers[name]
        place = 1 + sum(line["rank"] != "" for line in lines)
        lines.append(
            {
                "name": name,
                "trained": trained,
                "rank": str(place) if trained and ranked else "",
                "cells": [
                    said(numbers[name][key]) if key in numbers[name] else MISSING
                    for key, (_, said) in columns.items()
                ],
                "objections": [
                    found.replace("_", " ") for found in objections(audit, fid, results.reference)
                ],
            }
        )
    return [heading for heading, _ in columns.values()], lines


def plots(results: Results) -> list[dict]:
    """Figures of all rows: each `title`, `svg`, `alt`, `caption` and the `source` of its values."""
    kernel = next(name for _, name in scores.KEYS.values() if name in results.reference)
    short = next(name for name in scores.SHORT.values() if name in results.reference)
    reference, audits = results.reference, "metrics/audit/<row>.json"
    true = reference["coherence"]

    def drawn(title: str, of, caption: str, source: str, marks: dict, percent=False) -> dict:
        lines = [
            Dot(name, name not in results.controls, *of(*results.measured(name)))
            for name in results.ranked()
        ]
        return {
            "title": title,
            "svg": figures.dots(title.replace(" ", "-"), lines, marks, percent),
            "alt": _alt(title, lines, percent),
            "caption": caption,
            "source": source,
        }

    def distance(fid: dict, audit: dict) -> tuple:
        value, interval = fid[kernel]["val"], fid[kernel]["interval"]
        return value, (value - interval, value + interval)

    def rate(name: str) -> Callable:
        def of(fid: dict, audit: dict) -> tuple:
            if name not in audit:
                return (None,)
            found = audit[name]
            return found["rate"], wilson(found["rate"], audit["images"]), found["null"]

        return of

    return [
        drawn(
            "Kernel distance",
            distance,
            "From held-out images, with its 95 % interval over disjoint parts; lower is better. It"
            " needs no floor taken off, but a copy scores as well as a new picture.",
            f"metrics/fid/<row>.json, {kernel}",
            {"true images": reference[kernel]["floor"]},
        ),
        drawn(
            "Named copies",
            rate("copied"),
            "Share of the samples that a copy test names. Whiskers: 95 % (Wilson). The tick is"
            " the share of held-out images that the same tests name; a row far right of it copies.",
            f"{audits}, copied",
            {},
            percent=True,
        ),
        drawn(
            "Own query",
            rate("own_query"),
            "Share of the samples whose nearest training image is the very one that neighbours were"
            " looked up for. Whiskers: 95 % (Wilson); tick: held-out images. Rows that look nothing"
            " up have none.",
            f"{audits}, own_query",
            {},
            percent=True,
        ),
        drawn(
            "Recall",
            lambda fid, audit: (fid[short]["recall"],),
            "Share of the held-out images that have something like them among the samples; higher"
            " is better.",
            f"metrics/fid/<row>.json, {short}",
            {"true latents, decoded": reference[short]["recall"]},
        ),
        drawn(
            "Colours of two blocks",
            lambda fid, audit: (audit["coherence"]["colour_correlation"],),
            "How the mean colours of two blocks of a picture go together (correlation): blocks that"
            " know nothing of each other have none.",
            f"{audits}, coherence",
            {"true": true["colour_correlation"], "shuffled": true["colour_correlation_shuffled"]},
        ),
        drawn(
            "Seams",
            lambda fid, audit: (audit["coherence"]["latent_ratio"],),
            "How much latents jump at the borders of blocks, beside true images: 1 is no seam, more"
            " is a visible one.",
            f"{audits}, coherence",
            {"no seam": 1.0},
        ),
    ]


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays in 0..1 even where nothing is found.

    Args:
        rate: share found.
        n: among how many.
    """
    widened = 1 + NORMAL**2 / n
    centre = rate + NORMAL**2 / (2 * n)
    half = NORMAL * sqrt(rate * (1 - rate) / n + NORMAL**2 / (4 * n**2))
    return (centre - half) / widened, (centre + half) / widened


def _alt(title: str, lines: list[Dot], percent: bool) -> str:
    said = _percent if percent else _hundredths
    found = sorted((of for of in lines if of.value is not None), key=lambda of: of.value)
    if not found:
        return f"{title}: measured of no row."
    ends = [f"{of.label} ({said(of.value)})" for of in (found[0], found[-1])]
    return f"{title} of {len(found)} rows, from {ends[0]} to {ends[1]}."


def _tenths(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _hundredths(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %".replace("-", "\N{MINUS SIGN}")
