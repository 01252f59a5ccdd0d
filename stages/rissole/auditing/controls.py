"""Rows that nobody trained: true images, and cheats made of them, in the place of drawn ones.

Every cheat here is a few lines, and scores well somewhere. What should flag it does, or the
measures are broken.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rissole.auditing import coherence
from rissole.core import numerics
from rissole.latent import blocks as grid

import torch
from torch import Tensor

# By control, the objections that it must raise at least; true images must raise none.
MUST_RAISE = {
    "held_out": (),
    "reconstructed": (),
    "copies": ("own_query", "copied"),
    "half_copies": ("own_query", "copied"),
    "random_collage": ("copied", "collage", "colour", "seams"),
    "neighbour_collage": ("pasted", "copied", "collage"),
    "disguised_collage": ("pasted",),
    "neighbour_mean": ("recall",),
}
TRUE = ("held_out", "reconstructed")
ENOUGH = 200  # held-out images, from which on a mistake of the measures is an error
UNTOLD = (*TRUE, "random_collage")  # without query and neighbours


@dataclass(frozen=True)
class Sources:
    """What the controls are made of.

    Attributes:
        train: latents of all train images (m, c, h, w), normalised.
        val: latents of the held-out images that may be shown, likewise.
        query: train rows, int64 (n).
        neighbours: rows of their neighbours, best first, (n, k).
        blocks: per side.
        seed: of the random choices.
    """

    train: Tensor
    val: Tensor
    query: Tensor
    neighbours: Tensor
    blocks: int
    seed: int


def latents(of: Sources) -> Iterator[tuple[str, Tensor]]:
    """The latents (n, c, h, w) of each control, by name; those that are not on the grid of the
    codes are put on it by whoever decodes them, as drawn latents are.
    """
    n, generator = len(of.query), torch.Generator().manual_seed(numerics.seeded(of.seed))
    yield "held_out", of.val
    yield "reconstructed", of.val
    copied = of.train[of.query]
    yield "copies", copied
    half = min(n // 2, len(of.val))
    yield "half_copies", torch.cat([copied[:half], of.val[:half]])
    anyone = coherence.strangers(len(of.train), n, generator)
    yield "random_collage", coherence.collages(of.train, anyone, of.blocks, generator)
    collage = coherence.collages(of.train, of.neighbours, of.blocks, generator)
    yield "neighbour_collage", collage
    mean = torch.stack([of.train[rows].mean(0) for rows in of.neighbours])
    yield "disguised_collage", feathered(recoloured(collage, mean, of.blocks), of.blocks)
    yield "neighbour_mean", mean


def recoloured(z: Tensor, like: Tensor, blocks: int) -> Tensor:
    """Latents (n, c, h, w) with the channel means of each block taken from `like`."""
    cut, wanted = grid.cut(z, blocks), grid.cut(like, blocks)
    means = [x.mean((-1, -2), keepdim=True) for x in (cut, wanted)]
    return grid.join(cut - means[0] + means[1], blocks)


def feathered(z: Tensor, blocks: int) -> Tensor:
    """Latents (n, c, h, w) with the two pixels along each border smoothed across it."""
    for axis in (-1, -2):
        z = z.transpose(axis, -1)
        side = z.shape[-1] // blocks
        smooth = z.clone()
        for border in range(side, z.shape[-1], side):
            for at in (border - 1, border):
                smooth[..., at] = (z[..., at - 1] + 2 * z[..., at] + z[..., at + 1]) / 4
        z = smooth.transpose(axis, -1)
    return z


def mistakes(raised: dict[str, list[str]]) -> list[str]:
    """What the measures miss or wrongly object to, a sentence each.

    Args:
        raised: objections by control.
    """
    found = []
    for name, must in MUST_RAISE.items():
        missed = [objection for objection in must if objection not in raised[name]]
        if missed:
            found.append(f"{name} is a cheat that '{' and '.join(missed)}' should have flagged")
        if name in TRUE and raised[name]:
            found.append(f"{name} are true images, flagged by '{' and '.join(raised[name])}'")
    return found
