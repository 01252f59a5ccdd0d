"""The copy audit of one set of images: every test with its null, and what each image came from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rissole.auditing import copies
from rissole.auditing.copies import Drawn, Found
from rissole.core import files
from rissole.latent.latents import Latents, number, read_neighbours

import numpy as np
import torch
from torch import Tensor

TOLERATED = 0.1  # own-query rate above its null: held-out images match a query only roughly
PASTED = 0.4  # chance, of 0.5 for held-out images, below which neighbours are pasted


@dataclass(frozen=True)
class Real:
    """The true images that drawn ones are audited against.

    Attributes:
        train: all train images.
        val: held-out images; where the audited set was told neighbours, with their own
            `neighbours`, and with the likely `query` (`copies.likely_queries`).
        blocks: per side of the grid on which blocks are compared.
        query_blocks: the positions by which neighbours are looked up; none if by the whole latent.
        groups: of the train images, int64 (m), equal for one group; None where there are none.
    """

    train: Drawn
    val: Drawn
    blocks: int
    query_blocks: frozenset[int] = frozenset()
    groups: Tensor | None = None


@dataclass(frozen=True)
class Traces:
    """What in the train images is nearest to each image of a set.

    Attributes:
        whole: by whole latent.
        by_block: by each block, one per position; a query's own row is left out.
        copied: whether a test names the image a copy, bool (n).
        vouched: whether the others are none: no test accuses the set as a whole, and copies could
            have been named (`copies.telling`) as whole images and at half of the positions.
    """

    whole: Found
    by_block: list[Found]
    copied: Tensor
    vouched: bool


def real_images(
    train: Latents,
    val: Latents,
    rows: np.ndarray,
    neighbours: Path | None,
    blocks: int,
    query_side: int,
) -> Real:
    """The true images for an audit.

    Args:
        train: latents of the database.
        val: latents of held-out images.
        rows: of those of them that stand for the null, int64 (m,).
        neighbours: folder of the neighbour tables, where the audited set was told neighbours.
        blocks: per side of the grid on which blocks are compared.
        query_side: blocks per side of the grid whose first block neighbours are looked up by.
    """
    table = train.table(normalise=True)
    held_out = Drawn(val.look_up(table), val.codes)[rows]
    query = None
    if neighbours is not None:
        query = files.read_table(neighbours / "val.parquet", []).schema.metadata[b"query"]
        of_train, of_val = (
            read_neighbours(neighbours / f"{split}.parquet", train)[1] for split in ("train", "val")
        )
        likely = copies.likely_queries(of_val[rows].numpy(), of_train.numpy())
        held_out = replace(held_out, neighbours=of_val[rows], query=torch.from_numpy(likely))
    return Real(
        train=Drawn(train.look_up(table), train.codes),
        val=held_out,
        blocks=blocks,
        query_blocks=_first_block(blocks, query_side) if query == b"first_block" else frozenset(),
        groups=None if set(train.groups) == {None} else torch.from_numpy(number(train.groups)),
    )


def _first_block(blocks: int, query_side: int) -> frozenset[int]:
    """The positions on a grid that the first block of a coarser one covers."""
    covered = range(-(-blocks // query_side))
    return frozenset(row * blocks + column for row in covered for column in covered)


def trace(drawn: Drawn, real: Real) -> tuple[dict, Traces]:
    """Run all copy tests on a set of images.

    Returns:
        The figures, nested by test; and what was found for each image. A `null` is the figure of
        held-out images. `copied` is the share of images that are named copies: too near to a train
        image as a whole, or in a block, or inside of one; `tests` the number of tests that could
        name one. `accused` lists the tests that a set fails without their naming images.
    """
    train, val = real.train, real.val
    whole, whole_val = (copies.search(x.z, train.z) for x in (drawn, val))
    c_t, chance = copies.copying_test(drawn.z, val.z, train.z)
    null, _ = copies.copying_test(val.z[1::2], val.z[::2], train.z)
    exact = [copies.exact_blocks(x.codes, train.codes, real.blocks) for x in (drawn, val)]
    named = [copies.flagged(whole.calibrated(), whole_val.calibrated())]
    numbers = {
        "authentic": {
            "rate": copies.authentic(whole, train.z),
            "null": copies.authentic(whole_val, train.z),
        },
        "copying_test": {"c_t": c_t, "null": null, "chance": chance},
        "calibrated": _rates(*named[0]),
        "exact_blocks": _rates(*exact),
    }
    by_block, by_block_val = [], []
    for name, inside in (("block_copies", False), ("inner_block_copies", True)):
        found, of_val = (
            [copies.search(x, t) for x, t in _positions(of, real, inside)] for of in (drawn, val)
        )
        flags = [
            copies.flagged(a.calibrated(), b.calibrated())
            for a, b in zip(found, of_val, strict=True)
        ]
        named += flags
        each = [torch.stack(part, 1) for part in zip(*flags, strict=True)]
        numbers[name] = _rates(*each) | {"worst": each[0].double().mean(0).max().item()}
        if drawn.query is not None:
            found = [copies.search(x, t, drawn.query) for x, t in _positions(drawn, real, inside)]
        if drawn.neighbours is not None:
            key = name.replace("block_copies", "own_neighbours")
            numbers[key] = _own_neighbours(drawn, real, found, of_val)
        by_block, by_block_val = by_block or found, by_block_val or of_val
    can = torch.tensor([copies.telling(null) for _, null in named])
    copied, copied_val = ((torch.stack(part, 1) & can).any(1) for part in zip(*named, strict=True))
    numbers["copied"] = _rates(copied, copied_val) | {"tests": int(can.sum()), "of": len(can)}
    numbers["sources"] = {"mean": _sources(by_block), "null": _sources(by_block_val)}
    if drawn.neighbours is not None:
        numbers["pasted"] = _pasted(drawn, real)
        numbers["ranks"] = _ranks(drawn, by_block)
        numbers["ranks_null"] = _ranks(val, by_block_val)
    if drawn.query is not None:
        numbers["own_query"] = _rates(
            copies.own_query(whole, drawn.query), copies.own_query(whole_val, val.query)
        )
    if drawn.query is not None and real.groups is not None:
        numbers["own_group"] = _rates(
            copies.own_group(whole, drawn.query, real.groups),
            copies.own_group(whole_val, val.query, real.groups),
        )
    numbers["accused"] = list(accusations(numbers, len(drawn), len(val)))
    somewhere = can[1:].unflatten(0, (2, -1)).any(0)  # by block or by its inside
    vouched = bool(can[0]) and 2 * somewhere.sum() >= len(somewhere) and not numbers["accused"]
    return numbers, Traces(whole, by_block, copied, bool(vouched))


def accusations(numbers: dict, images: int, held_out: int) -> Iterator[str]:
    """The tests that say of a set, but not of its single images, that it copies."""
    own = numbers.get("own_query", {"rate": 0.0, "null": 0.0})
    beyond = own["rate"] > own["null"] + TOLERATED
    if beyond and copies.above(own["rate"], own["null"], images, held_out):
        yield "own_query"
    if "pasted" in numbers and numbers["pasted"]["chance"] < PASTED:
        yield "pasted"


def _rates(drawn: Tensor, val: Tensor) -> dict[str, float]:
    return {"rate": drawn.double().mean().item(), "null": val.double().mean().item()}


def _positions(of: Drawn, real: Real, inside: bool) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(
        copies.each_block(of.z, real.blocks, inside),
        copies.each_block(real.train.z, real.blocks, inside),
        strict=True,
    )


def _sources(by_block: list[Found]) -> float:
    """How many train images the blocks of an image are nearest to, on average."""
    rows = torch.stack([found.rows[:, 0] for found in by_block], 1).tolist()
    return float(np.mean([len(set(row)) for row in rows]))


def _own_neighbours(drawn: Drawn, real: Real, found: list[Found], of_val: list[Found]) -> dict:
    """How often the nearest train block belongs to an own neighbour, the query's block aside."""
    hits = [
        torch.stack(
            [
                copies.ranks_used(at, of.neighbours) >= 0
                for position, at in enumerate(nearest)
                if position not in real.query_blocks
            ]
        )
        for of, nearest in ((drawn, found), (real.val, of_val))
    ]
    return _rates(*hits)


def _pasted(drawn: Drawn, real: Real) -> dict[str, float]:
    """The chance that an own neighbour stands out more in a drawn image than in a held-out one."""
    chances = []
    for position, ((x, train), (v, _)) in enumerate(
        zip(_positions(drawn, real, True), _positions(real.val, real, True), strict=True)
    ):
        if position not in real.query_blocks:
            near = copies.nearness(x, train, drawn.neighbours)
            chances.append(copies.farther(near, copies.nearness(v, train, real.val.neighbours)))
    return {"chance": float(np.mean(chances))}


def _ranks(drawn: Drawn, by_block: list[Found]) -> list[float]:
    """Of the blocks nearest to an own neighbour, the share nearest to that of each rank."""
    ranks = torch.stack([copies.ranks_used(found, drawn.neighbours) for found in by_block])
    shares = torch.bincount(ranks[ranks >= 0], minlength=drawn.neighbours.shape[1])
    return [round(share, 4) for share in (shares / shares.sum().clamp_min(1)).tolist()]
