"""Plots as SVG that takes its colours and its type from the page around it."""

import io
import re
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

# Drawn in these, and each replaced by a variable of the page's CSS, which dark mode changes.
INK, QUIET, FAINT, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
VARIABLES = {INK: "--ink", QUIET: "--quiet", FAINT: "--faint", ACCENT: "--accent"}
LINE = 17  # points from one line of labels to the next
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names may hold a $
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Dot:
    """A figure of one row.

    Attributes:
        label: the row.
        trained: whether it is no control.
        value: None where it was not measured.
        interval: ends of the interval, or None where none is known.
        null: what held-out images have in its place, or None.
    """

    label: str
    trained: bool
    value: float | None
    interval: tuple[float, float] | None = None
    null: float | None = None


def dots(name: str, lines: list[Dot], marks: dict[str, float], percent: bool = False) -> str:
    """A dot for each row, with its interval as a whisker and its null as a tick.

    Args:
        name: unlike that of any other figure of the page.
        lines: from the top down.
        marks: values to draw a line at, by what they are.
        percent: whether shares are meant.
    """
    scale = 100 if percent else 1
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(360, LINE * len(lines) + 56)
        for place, of in enumerate(lines):
            colour = ACCENT if of.trained else QUIET
            if of.null is not None and of.value is not None:
                axes.plot(of.null * scale, place, "|", color=QUIET, ms=9, mew=1.2)
            if of.interval is not None:
                axes.hlines(place, *(scale * end for end in of.interval), color=colour, lw=1.6)
            if of.value is not None:
                face = colour if of.trained else "none"
                axes.plot(of.value * scale, place, "o", mec=colour, mfc=face, ms=5.5, mew=1.3)
        for text, value in marks.items():
            axes.axvline(value * scale, color=QUIET, lw=0.8, dashes=(3, 3), zorder=0)
            axes.annotate(
                text,
                (value * scale, 1),
                (3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=9.5,
                color=QUIET,
            )
        axes.set_yticks(range(len(lines)), [of.label for of in lines])
        for label, of in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_color(INK if of.trained else QUIET)
            label.set_fontstyle("normal" if of.trained else "italic")
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:g} %" if percent else "{x:g}")
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=5)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        return _svg(figure, name)


def loss_curve(
    name: str,
    steps: np.ndarray,
    loss: np.ndarray,
    checked: tuple[np.ndarray, np.ndarray],
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> str:
    """One training's loss, before the range of all of them.

    Args:
        name: unlike that of any other figure of the page.
        steps: (n,).
        loss: (n,), positive.
        checked: steps and validation losses.
        band: steps, lowest and highest loss of all trainings there; they share an axis then.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(260, 150)
        if band is not None:
            axes.fill_between(*band, color=FAINT, lw=0)
            axes.set_ylim(band[1].min() / 1.1, band[2].max() * 1.1)
        axes.plot(steps, loss, color=ACCENT, lw=1.4)
        axes.plot(*checked, "o", mec=INK, mfc="none", ms=4, mew=1.2)
        axes.set_yscale("log")
        _log_labels(axes)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y")
        axes.margins(x=0.01)
        return _svg(figure, name)


def _log_labels(axes: Axes) -> None:
    """Label a few values of a logarithmic axis, even where it spans less than a decade."""
    low, high = axes.get_ylim()
    digits = np.array([1, 2, 5])
    values = np.concatenate([digits * 10.0**power for power in range(-8, 9)])
    inside = values[(values >= low) & (values <= high)]
    axes.set_yticks(inside[:: max(1, -(-len(inside) // 5))])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def shares(name: str, counts: np.ndarray) -> str:
    """How often each code is used, the most frequent first, beside equal use.

    Args:
        name: unlike that of any other figure of the page.
        counts: int64 (K,).
    """
    falling = np.sort(counts)[::-1] / counts.sum() * 100
    width = -(-len(falling) // 512)  # codes in a bar: no more bars than pixels
    edges = np.append(np.arange(0, len(falling), width), len(falling))
    heights = np.add.reduceat(falling, edges[:-1]) / np.diff(edges)
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(520, 210)
        axes.stairs(heights, edges, fill=True, color=ACCENT, lw=0)
        even = 100 / len(falling)
        axes.axhline(even, color=INK, lw=0.9, dashes=(3, 3))
        axes.annotate(
            "equal use",
            (1, even),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=10,
        )
        axes.set_xlabel("codes, the most frequent first")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis="y")
        axes.margins(x=0)
        return _svg(figure, name)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many points, its axes as large as the labels leave room."""
    figure = Figure((width / 72, height / 72), dpi=72, layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The figure as an `svg` element, the same bytes each time.

    It scales with the page, its ids are its own, and who reads the page aloud skips it: the
    caption says what it shows.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.S)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)
