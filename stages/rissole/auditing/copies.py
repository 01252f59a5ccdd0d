"""Copy audits: how much of what was drawn is a training image, or made of blocks of some.

Every figure comes with its null: the same figure for held-out images in the place of the drawn
ones. All of them look at latents, and search all train images: a subset misses most sources of
copies.
"""

from dataclasses import dataclass

from rissole.auditing.distances import nearest
from rissole.core import numerics
from rissole.latent import blocks as grid

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CALIBRATION = 50  # nearest neighbours whose mean distance a distance is measured in
QUANTILE = 0.01  # of the held-out images, which a calibrated distance flags by chance
SIGMAS = 3  # above its null, a rate is evidence
INNOCENT = 0.05  # share of the held-out images that a test may flag and still name copies


@dataclass(frozen=True)
class Drawn:
    """A set of images as the audits see it.

    Attributes:
        z: latents, normalised (n, c, h, w).
        codes: int (n, h, w).
        neighbours: rows of the train images that each was told, (n, k), best first, or None.
        query: the train row behind each, int64 (n), or None.
    """

    z: Tensor
    codes: Tensor
    neighbours: Tensor | None = None
    query: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows) -> "Drawn":
        parts = (self.z, self.codes, self.neighbours, self.query)
        return Drawn(*(None if part is None else part[rows] for part in parts))


@dataclass(frozen=True)
class Found:
    """What search found in the train images for a set: nearest first.

    Attributes:
        rows: int64 (n, CALIBRATION).
        distances: float64, likewise.
    """

    rows: Tensor
    distances: Tensor

    def calibrated(self) -> Tensor:
        """The nearest distance in units of half the mean of the CALIBRATION nearest, (n).

        Near 0 for a copy (Carlini et al. 2023, section 4.2); 2 where all are equally far.
        """
        mean = self.distances.mean(1).clamp_min(torch.finfo(torch.float64).tiny)
        return self.distances[:, 0] / (0.5 * mean)


def search(points: Tensor, train: Tensor, own: Tensor | None = None) -> Found:
    """Find the nearest train points (m, ...) of points (n, ...)."""
    n = min(CALIBRATION, len(train) - 1 - (own is not None))
    return Found(*nearest(points.flatten(1), train.flatten(1), n, own))


def each_block(z: Tensor, blocks: int, inside: bool = False) -> list[Tensor]:
    """The blocks (n, d) of latents (n, c, h, w), by position; or what is inside of them.

    The inside is a block without its outermost pixels and without its channel means: what is left
    of a pasted block whose colours were matched and whose borders were smoothed.
    """
    cut = grid.cut(z, blocks)
    if inside:
        if min(cut.shape[-2:]) > 2:
            cut = cut[..., 1:-1, 1:-1]
        cut = cut - cut.mean((-1, -2), keepdim=True)
    return list(cut.flatten(2).unbind(1))


def flagged(drawn: Tensor, val: Tensor) -> tuple[Tensor, Tensor]:
    """Which calibrated distances are not above the lowest of held-out images.

    The threshold is the QUANTILE of every second held-out image. The null is the rate in the
    others; it is above the QUANTILE where that much of the held-out images are exact copies.

    Args:
        drawn: calibrated distances (n).
        val: those of held-out images (m).

    Returns:
        Flags of the drawn (n) and of the other held-out images (m // 2).
    """
    threshold = torch.quantile(val[::2], QUANTILE)
    return drawn <= threshold, val[1::2] <= threshold


def authentic(found: Found, train: Tensor) -> float:
    """Share of images farther from their nearest train image than that is from the others.

    Alaa et al. 2022. The null is not a half but what held-out images have.

    Args:
        found: by whole latents.
        train: latents (m, ...).
    """
    source, place = found.rows[:, 0].unique(return_inverse=True)
    _, apart = nearest(train[source].flatten(1), train.flatten(1), 1, own=source)
    return (found.distances[:, 0] > apart[place, 0]).double().mean().item()


def copying_test(drawn: Tensor, val: Tensor, train: Tensor) -> tuple[float, float]:
    """Whether drawn images are nearer to train images than held-out ones are (Meehan et al. 2020).

    Rank tests of the distance to the nearest train image, in three cells of the train images,
    weighted by the held-out images in them. Cells with 20 drawn images or fewer are left out.

    Args:
        drawn: latents (n, ...).
        val: those of held-out images (m, ...).
        train: those of train images.

    Returns:
        C_T, far below 0 for copies and far above for underfit images; and the chance that a drawn
        image is farther than a held-out one, 0.5 if neither is.
    """
    drawn, val, train = (x.flatten(1) for x in (drawn, val, train))
    mean = train.mean(0)
    if train.shape[1] > 64:
        some = train[numerics.evenly(len(train), 4096)]
        spread = (some - mean).T @ (some - mean)  # whose axes an SVD takes fifty times as long for
        # Of the widest spread; in single precision LAPACK may fail where many axes have none.
        axes = torch.linalg.eigh(spread.double()).eigenvectors[:, -64:].to(mean)
        drawn, val, train = ((x - mean) @ axes for x in (drawn, val, train))
    centres = _means(train, 3)
    cells = [torch.cdist(x, centres).argmin(1) for x in (drawn, val, train)]
    z, area, weight = 0.0, 0.0, 0.0
    for cell in range(3):
        g, v, t = (x[of == cell] for x, of in zip((drawn, val, train), cells, strict=True))
        if len(g) <= 20 or len(v) < 2 or len(t) < 2:
            continue
        g, v = (nearest(x, t)[1][:, 0] for x in (g, v))
        n, m = len(v), len(g)
        u = n * m * farther(g, v)
        share = n / len(val)
        z += share * (u - (n * m / 2 - 0.5)) / (n * m * (n + m + 1) / 12) ** 0.5
        area += share * u / (n * m)
        weight += share
    return (z / weight, area / weight) if weight else (0.0, 0.5)


def farther(drawn: Tensor, val: Tensor) -> float:
    """The chance that one of `drawn` (n) is above one of `val` (m), ties counting half."""
    order = val.sort().values
    below = torch.searchsorted(order, drawn)
    equal = torch.searchsorted(order, drawn, right=True) - below
    return ((below + equal / 2).double().mean() / len(val)).item()


def telling(null: Tensor) -> bool:
    """Whether a test that flags these of the held-out images, bool (m), can name anyone a copy.

    It cannot where it flags more than INNOCENT of them, by more than chance: where that many true
    images equal train images, so do drawn ones that copy nothing.
    """
    deviation = (INNOCENT * (1 - INNOCENT) / len(null)) ** 0.5
    return null.double().mean().item() <= INNOCENT + SIGMAS * deviation


def own_query(found: Found, query: Tensor) -> Tensor:
    """Whether the nearest train image is the one behind the drawn image, bool (n)."""
    return found.rows[:, 0] == query


def own_group(found: Found, query: Tensor, groups: Tensor) -> Tensor:
    """Whether the nearest train image is of the group of the one behind the drawn image, bool (n).

    Args:
        found: by whole latents.
        query: train rows, int64 (n).
        groups: of all train rows, int64 (m), equal for one group.
    """
    return groups[found.rows[:, 0]] == groups[query]


def likely_queries(neighbours: np.ndarray, table: np.ndarray) -> np.ndarray:
    """For images told some neighbours, the train row whose own neighbours are most like these.

    It stands for the query of a held-out image: who is told its neighbours cannot know more of
    this row than of a drawn image's query. So the rate at which it is the nearest train image of
    the held-out image is the null of the own-query rate.

    Args:
        neighbours: of held-out images, (m, k).
        table: of all train rows, (n, k).
    """
    order = np.argsort(table.ravel(), kind="stable")
    start = np.searchsorted(table.ravel()[order], np.arange(len(table) + 1))
    holders = order // table.shape[1]
    return np.array(
        [
            np.bincount(
                np.concatenate([holders[start[row] : start[row + 1]] for row in of]), minlength=1
            ).argmax()
            for of in neighbours
        ]
    )


def ranks_used(found: Found, neighbours: Tensor) -> Tensor:
    """The rank (from 0) of the nearest train row among the image's own neighbours, -1 if none."""
    same = found.rows[:, :1] == neighbours
    return torch.where(same.any(1), same.int().argmax(1), -1)


def nearness(points: Tensor, train: Tensor, neighbours: Tensor) -> Tensor:
    """How much nearer the nearest of an image's own neighbours is than they are on average, (n).

    From 0, a copy of one of them, to 1, equally far from all. A blurred image is nearer to all of
    them than a true one is, and so more often nearest to one of them; this ratio does not move.

    Args:
        points: (n, d).
        train: (m, d).
        neighbours: rows of `train` (n, k).
    """
    parts = zip(points.split(256), neighbours.split(256), strict=True)
    apart = torch.cat([(train[of] - some[:, None]).norm(dim=2) for some, of in parts])
    return apart.amin(1) / apart.mean(1).clamp_min(torch.finfo(apart.dtype).tiny)


def exact_blocks(drawn: Tensor, train: Tensor, blocks: int) -> Tensor:
    """Whether a block of codes equals that of a train image at its position, bool (n, blocks^2).

    Args:
        drawn: codes (n, h, w).
        train: codes (m, h, w).
        blocks: per side.
    """
    cut = [
        grid.cut(codes[:, None], blocks).flatten(2).int().cpu().numpy() for codes in (drawn, train)
    ]
    return torch.tensor(
        [
            [block.tobytes() in known for block in cut[0][:, position]]
            for position, known in enumerate(
                {block.tobytes() for block in cut[1][:, position]} for position in range(blocks**2)
            )
        ]
    ).T


def above(rate: float, null: float, images: int, held_out: int) -> bool:
    """Whether a rate over `images` is SIGMAS above its null, itself a rate over `held_out` images.

    The spread is that of both rates if they were one, pooled over all images.
    """
    pooled = (images * rate + held_out * null) / (images + held_out)
    deviation = (pooled * (1 - pooled) * (1 / images + 1 / held_out)) ** 0.5
    return rate > null + SIGMAS * deviation


def _means(points: Tensor, k: int) -> Tensor:
    """Centres (k, d) of k cells by Lloyd's algorithm, started at points far from each other."""
    centres = points[:1]
    while len(centres) < k:
        farthest = torch.cdist(points, centres).amin(1).argmax()
        centres = torch.cat([centres, points[farthest, None]])
    for _ in range(20):
        cell = F.one_hot(torch.cdist(points, centres).argmin(1), k).to(points.dtype)
        centres = (cell.T @ points) / cell.sum(0).clamp_min(1)[:, None]
    return centres
