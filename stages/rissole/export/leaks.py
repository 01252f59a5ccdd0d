"""Whether what was drawn from somebody's folder is that folder's images over again.

The project's copy tests, with nulls made of the folder itself: its own images, each as if it were
not in the folder, and blends, the mean latent of the neighbours that each of them would be told. A
blend copies nothing, but is as soft as what a denoiser draws of images that it was not trained on:
by true images alone, whatever is soft would be taken for a copy of something dark or plain.
"""

from dataclasses import dataclass

from rissole.auditing import audit, copies
from rissole.auditing.copies import Found
from rissole.core import numerics
from rissole.export.database import Database

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HELD_OUT = 1000  # images of the folder at most that the null is made of


@dataclass(frozen=True)
class Leaks:
    """What the check of some drawn images found.

    Attributes:
        images: how many were checked.
        own_query: share nearest to the image of the folder that was their query, whose neighbours
            they were told; None where the queries are not of the folder.
        own_query_chance: the same without a leak: of true images, nearest to the one that has most
            neighbours in common with them, or of blends, whichever is more.
        copied: share that a copy test names: as a whole, in a block or inside of one nearer to an
            image of the folder than nearly all true images and nearly all blends are.
        copied_chance: the same of true images.
        tests: copy tests that can name an image here, of so many (`of`). One that names many true
            images or blends names nothing; blends of a single neighbour are copies.
        named: numbers of the images that are named.
        warnings: what is wrong, in words; empty if nothing shows.
    """

    images: int
    own_query: float | None
    own_query_chance: float | None
    copied: float
    copied_chance: float
    tests: int
    of: int
    named: list[int]
    warnings: list[str]


class LeakCheck:
    """The tests over one folder; what they need of it is computed once.

    Args:
        database: the images of the folder, each a query.
        blocks: per side of the grid on which blocks are compared.
    """

    def __init__(self, database: Database, blocks: int):
        self.blocks, self.latents = blocks, database.latents
        self.table = self.latents.table(normalise=True)
        z = self.latents.look_up(self.table)
        self.views = self._views(z)
        self.held_out = numerics.evenly(len(z), HELD_OUT)
        own = torch.from_numpy(self.held_out)
        table = database.neighbours[np.argsort(database.queries)]
        parts = torch.from_numpy(self.held_out).split(64)
        blends = self._views(torch.cat([z[table[rows]].mean(1) for rows in parts]))
        true = [copies.search(view[own], view, own) for view in self.views]
        blended = [
            copies.search(view, known) for view, known in zip(blends, self.views, strict=True)
        ]
        self.true, self.blends = ([of.calibrated() for of in found] for found in (true, blended))
        stand_ins = torch.from_numpy(_stand_ins(table.numpy(), self.held_out))
        self.own_query_chance = max(
            _share(copies.own_query(true[0], stand_ins)), _share(copies.own_query(blended[0], own))
        )

    def __call__(self, codes: np.ndarray, queries: np.ndarray | None) -> Leaks:
        """Check drawn images.

        Args:
            codes: of them, (n, h, w).
            queries: rows of the folder that were their queries, int64 (n), or None.
        """
        z = F.embedding(torch.from_numpy(codes.astype(np.int32)), self.table).movedim(-1, 1)
        found = [
            copies.search(view, known)
            for view, known in zip(self._views(z.contiguous()), self.views, strict=True)
        ]
        named, null, tests = self._named(found)
        own = None
        if queries is not None:
            own = copies.own_query(found[0], torch.from_numpy(queries))
        leaks = Leaks(
            images=len(codes),
            own_query=None if own is None else _share(own),
            own_query_chance=None if own is None else self.own_query_chance,
            copied=_share(named),
            copied_chance=_share(null),
            tests=tests,
            of=len(found),
            named=named.nonzero()[:, 0].tolist(),
            warnings=[],
        )
        leaks.warnings.extend(_warnings(leaks, len(self.held_out)))
        return leaks

    def _views(self, z: Tensor) -> list[Tensor]:
        """What copies are looked for in: the whole latents, each block, the inside of each."""
        parts = (copies.each_block(z, self.blocks, inside) for inside in (False, True))
        return [z.flatten(1), *sum(parts, [])]

    def _named(self, found: list[Found]) -> tuple[Tensor, Tensor, int]:
        """Which images are named, bool (n), and which true ones, bool (m); how many tests can."""
        named = []
        for drawn, true, blends in zip(found, self.true, self.blends, strict=True):
            by_true, null = copies.flagged(drawn.calibrated(), true)
            by_blends, of_blends = copies.flagged(drawn.calibrated(), blends)
            if copies.telling(null) and copies.telling(of_blends):
                null &= copies.flagged(true[1::2], blends)[0]
                named.append((by_true & by_blends, null))
        if not named:
            return torch.zeros(len(drawn.rows)).bool(), null & False, 0
        return *(torch.stack(part, 1).any(1) for part in zip(*named, strict=True)), len(named)


def _stand_ins(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For some images of a folder, that other one whose neighbours are most like theirs, (m).

    As `copies.likely_queries`, but for images that are in the table themselves.

    Args:
        table: the neighbours of all images of the folder, (n, k).
        rows: of the images, int64 (m).
    """
    found = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        told = np.zeros(len(table), bool)
        told[table[row]] = True
        shared = told[table].sum(1)
        shared[row] = -1
        found[place] = shared.argmax()
    return found


def _warnings(leaks: Leaks, held_out: int) -> list[str]:
    found = []
    if leaks.own_query is not None:
        numbers = {"own_query": {"rate": leaks.own_query, "null": leaks.own_query_chance}}
        if "own_query" in audit.accusations(numbers, leaks.images, held_out):
            found.append(
                f"{leaks.own_query:.0%} of the {leaks.images} drawn images are nearest to their"
                f" own query image, by chance {leaks.own_query_chance:.0%}: the query leaks"
            )
    if copies.above(leaks.copied, leaks.copied_chance, leaks.images, held_out // 2):
        found.append(
            f"{leaks.copied:.0%} of the {leaks.images} drawn images are named copies of images of"
            f" the folder, of true images {leaks.copied_chance:.0%}: do not take them for new"
        )
    if leaks.tests == 0:
        found.append(
            "no copy test can tell here: images of the folder are too alike, or too few are told"
        )
    return found


def _share(flags: Tensor) -> float:
    return round(flags.double().mean().item(), 4)
