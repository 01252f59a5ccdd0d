"""Seams: how much more pixels differ where two blocks meet than elsewhere.

Images are arrays uint8 or float (n, s, s, c), pictures and latents alike, cut into `blocks` per
side; all figures are means over images, channels and both directions. True images are not the same
everywhere either (a face has its nose on the middle seam), so `seams` divides by what they give.
A copied image has no seam: these figures never stand alone.
"""

from rissole.harness.errors import InputError

import numpy as np

CHUNK = 2**18  # values of images held at once: 1 MiB, and a few times that for their differences


def pair_counts(height: int, width: int, side: int) -> tuple[int, int]:
    """Pairs of neighbouring pixels in one image, horizontal and vertical together.

    N_HB + N_VB and its complement in Yim and Bovik 2011 (Quality Assessment of Deblocked Images).

    Args:
        height: of the image.
        width: of the image.
        side: of a block; divides both.

    Returns:
        How many have a block edge between them, and how many have none.
    """
    straddling = height * (width // side - 1) + width * (height // side - 1)
    return straddling, height * (width - 1) + width * (height - 1) - straddling


def edge_ratio(x: np.ndarray, blocks: int) -> float:
    """Mean squared difference of neighbours across block edges, over that of all others.

    D_B / D_B^C in Yim and Bovik 2011, whose blocking effect factor is made of D_B - D_B^C.

    Args:
        x: images uint8 or float (n, s, s, c).
        blocks: blocks per side, 2 or more, each of 2 pixels or more.

    Returns:
        A number >= 0: about 1 without seams, more if they show, less if they are blurred.

    Raises:
        InputError: the images do not fall into such blocks, or are constant within them.
    """
    side, size = _side(x, blocks), x.shape[1]
    straddling, others = pair_counts(size, size, side)
    squares = _profile(x, {0: -1, 1: 1})
    at_edge = np.arange(1, size) % side == 0
    across, within = float(squares[at_edge].sum()), float(squares[~at_edge].sum())
    return _over(across / straddling, within / others, _within(x))


def lagged_ratio(x: np.ndarray, blocks: int, lag: int) -> float:
    """Mean squared difference of pixels further apart, across block edges over within blocks.

    Of the `lag` pixels centred on an edge (o its first pixel after) the outermost are compared,
    o - lag/2 and o + lag/2 - 1; within are the outermost of any `lag` pixels of one block. Lag 2 is
    `edge_ratio`; a lag wider than a blur along the edge sees past it, a narrower one does not.

    Args:
        x: images uint8 or float (n, s, s, c).
        blocks: blocks per side, 2 or more, each of 2 pixels or more.
        lag: even, from 2 to the side of a block.

    Returns:
        A number >= 0: about 1 without seams, more with them, and with those that such a blur hides.

    Raises:
        InputError: the images do not fall into such blocks, or are constant within them, or the
            lag does not fit.
    """
    side = _side(x, blocks)
    if lag % 2 or not 2 <= lag <= side:
        raise InputError(
            f"a lag of {lag} does not fit blocks of {side} x {side} pixels: take an even number"
            f" from 2 to {side}"
        )
    squares = _profile(x, {0: -1, lag - 1: 1})
    across = squares[side - lag // 2 :: side].mean()
    within = squares[np.arange(len(squares)) % side <= side - lag].mean()
    return _over(float(across), float(within), _within(x))


def phase_profile(x: np.ndarray) -> np.ndarray:
    """Mean square by which the step to a pixel differs from the mean of the steps beside it.

    At offset o: (y[o] - y[o-1]) - ((y[o-1] - y[o-2]) + (y[o+1] - y[o])) / 2. The level follows the
    sharpness of the images; seams show in its shape, over that of true images.

    Args:
        x: images uint8 or float (n, s, s, c), s >= 4.

    Returns:
        float64 (s - 3,), for the offsets o = 2 to s - 2.

    Raises:
        InputError: the images are not square, or smaller than that.
    """
    height, width = x.shape[1:3]
    if height != width or height < 4:
        raise InputError(
            f"a phase profile needs square images of 4 x 4 pixels or more, and these have"
            f" {height} x {width}"
        )
    # in this order equal pixels give exactly 0
    return _profile(x, {1: -1.5, 2: 1.5, 0: 0.5, 3: -0.5})


def seams(drawn: np.ndarray, true: np.ndarray, blocks: int, lag: int) -> dict[str, float]:
    """The seams of drawn images, over what true images give at the same places.

    Args:
        drawn: images uint8 or float (n, s, s, c).
        true: images (m, s, s, c) on the same scale: reconstructions of held-out ones, which the
            decoder has smoothed as much.
        blocks: blocks per side, 2 or more, each of 2 pixels or more.
        lag: even, from 2 to the side of a block.

    Returns:
        `ratio`: `edge_ratio`, drawn over true; 1 without seams, below if they are blurred.
        `lagged`: `lagged_ratio`, drawn over true; 1 without seams, above with them.
        `phase`: `phase_profile`, drawn over true, mean over the seams; moves with sharpness too.
        `phase_rank`: where a seam stands among all offsets by `phase_profile`, drawn over true: 1
            is the largest, ties count halfway, and of several seams it is the smallest rank. Read
            it from both ends: a seam that shows is first, a blurred one, as guilty, among the last.
            Without seams every rank is as likely (of one seam; of several a small one is likelier).
        `phase_offsets`: how many offsets there are: the last rank.

    Raises:
        InputError: as `edge_ratio` and `lagged_ratio`, or the true images are constant where they
            are divided by.
    """
    of_true = f"of {len(true)} true images"
    at_edges = f"pixels across block edges {of_true}"
    ratio = _over(edge_ratio(drawn, blocks), edge_ratio(true, blocks), at_edges)
    lagged = _over(lagged_ratio(drawn, blocks, lag), lagged_ratio(true, blocks, lag), at_edges)
    phases = _over(phase_profile(drawn), phase_profile(true), f"steps at an offset {of_true}")
    side = drawn.shape[1] // blocks
    at_seams = phases[side - 2 :: side]
    return {
        "ratio": ratio,
        "lagged": lagged,
        "phase": float(at_seams.mean()),
        "phase_rank": min(_rank(seam, phases) for seam in at_seams),
        "phase_offsets": len(phases),
    }


def _profile(x: np.ndarray, stencil: dict[int, float]) -> np.ndarray:
    """Mean square of the sum of pixels weighted by {place: weight}, from each place where it fits.

    Args:
        x: square images (n, s, s, c).
        stencil: from place 0 to r.

    Returns:
        float64 (s - r,).
    """
    n, size, _, channels = x.shape
    starts = size - max(stencil)
    total = np.zeros(starts)
    images = max(1, CHUNK // x[0].size)
    for first in range(0, n, images):
        chunk = x[first : first + images].astype(np.float32)
        for along in (chunk, chunk.swapaxes(1, 2)):
            sums = sum(weight * along[:, at : at + starts] for at, weight in stencil.items())
            total += np.square(sums).sum((0, 2, 3), dtype=np.float64)
    return total / (2 * n * size * channels)


def _rank(value: float, among: np.ndarray) -> float:
    return float((among > value).sum() + (among >= value).sum() + 1) / 2


def _within(x: np.ndarray) -> str:
    return f"pixels within blocks of {len(x)} images"


def _over(above: float | np.ndarray, below: float | np.ndarray, what: str) -> float | np.ndarray:
    if not np.all(below):
        raise InputError(
            f"{what} are all alike, and without differences between them no seam can be told: look"
            " at the images, and if they are constant, train the model that made them for longer"
        )
    return above / below


def _side(x: np.ndarray, blocks: int) -> int:
    height, width = x.shape[1:3]
    if blocks < 2 or height != width or height % blocks or height < 2 * blocks:
        raise InputError(
            "seams lie between 2 or more equal blocks per side of a square image, each of 2 pixels"
            f" or more, and not in {height} x {width} pixels with {blocks}: choose `blocks` so"
        )
    return height // blocks
