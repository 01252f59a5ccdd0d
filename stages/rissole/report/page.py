"""The page as HTML: one file that holds its pictures, its style and its script."""

import re
from pathlib import Path

from rissole.report.pipeline import Stage

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

HERE = Path(__file__).parent
LINE, ARCS = 44, 112  # pixels from stage to stage, and of the arcs between them


def render(**contents) -> str:
    """Fill the template; all text is escaped but for our own SVG, CSS, script and the data card.

    Args:
        contents: the variables of page.html.j2.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "duration": duration}
    style, script = (Markup((HERE / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        style=style,
        script=script,
        data=_beside(contents["gallery"]),
        line=LINE,
        arcs_width=ARCS,
        arcs=_arcs(contents["stages"]),
        **contents,
    )


def card(markdown: str) -> Markup:
    """A data card as HTML, its first heading left out; HTML in it is shown as text."""
    return Markup(MarkdownIt("js-default").render(re.sub(r"\A# .*\n", "", markdown)))


def _arcs(stages: list[Stage]) -> list[dict]:
    """Which stage waits for which, as arcs beside a list of them: `path`, `start`, `end`."""
    place = {stage.name: number for number, stage in enumerate(stages)}
    drawn = []
    for stage in stages:
        for other in stage.after:
            top, bottom = (LINE * (place[name] + 0.5) for name in (other, stage.name))
            share = abs(place[stage.name] - place[other]) / max(len(stages) - 1, 1)
            reach = ARCS - 12 - (ARCS - 28) * share**0.6
            drawn.append(
                {
                    "path": f"M{ARCS - 6} {top:g}C{reach:.1f} {top:g} {reach:.1f} {bottom:g}"
                    f" {ARCS - 6} {bottom:g}",
                    "start": other,
                    "end": stage.name,
                }
            )
    return drawn


def duration(seconds: float) -> str:
    """A time as one says it: 28 s, 5 min 36 s, 2 h 05 min."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def _beside(gallery: dict) -> dict:
    """What the script is told: all but the samples themselves, which the page holds already."""
    rows = [
        row | {"samples": [{k: v for k, v in of.items() if k != "src"} for of in row["samples"]]}
        for row in gallery["rows"]
    ]
    return gallery | {"rows": rows}
