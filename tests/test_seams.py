"""Seams: planted ones are seen, in the dose planted, and images without any give the null."""

from rissole.auditing import seams
from rissole.harness.errors import InputError

import numpy as np
import pytest

SIZE, BLOCKS, LAG = 32, 2, 8


def smooth(n, seed, width):
    """White noise (n, 32, 32, 2) through a Gaussian of `width` pixels, scaled to deviation 1."""
    noise = np.random.default_rng(seed).normal(size=(n, SIZE, SIZE, 2))
    gain = np.exp(-0.5 * (2 * np.pi * width * np.fft.fftfreq(SIZE)) ** 2)
    spectrum = np.fft.fft2(noise, axes=(1, 2)) * gain[:, None, None] * gain[:, None]
    made = np.fft.ifft2(spectrum, axes=(1, 2)).real
    return made / made.std()


def fields(n, seed):
    """Random pictures without seams: large smooth shapes with some texture, (n, 32, 32, 2)."""
    return smooth(n, seed, width=4) + 0.5 * smooth(n, seed + 1000, width=1)


def stitched(x, share=1.0, blocks=BLOCKS):
    """Every block of the first `share` of the images taken from another image."""
    made, side, n = x.copy(), SIZE // blocks, round(share * len(x))
    for i in range(blocks):
        for j in range(blocks):
            at = np.s_[:n, side * i : side * (i + 1), side * j : side * (j + 1)]
            made[at] = np.roll(x, 1 + i * blocks + j, axis=0)[at]
    return made


def feathered(x):
    """The 6 pixels around the middle seams blurred across them."""
    for axis in (1, 2):
        y = np.moveaxis(x.copy(), axis, 0)
        around = y[SIZE // 2 - 6 : SIZE // 2 + 6]
        y[SIZE // 2 - 3 : SIZE // 2 + 3] = [around[i : i + 7].mean(0) for i in range(6)]
        x = np.moveaxis(y, 0, axis)
    return x


def coarse(n=30, seed=0, size=8):
    """Random pictures of the two darkest and the two brightest greys, uint8 (n, size, size, 3)."""
    grey = np.array([0, 1, 254, 255], np.uint8)
    return np.random.default_rng(seed).choice(grey, size=(n, size, size, 3))


def steps(x):
    """Every pair of neighbours: whether an edge of blocks of 4 parts them, and their square."""
    for y in (x.astype(int), x.astype(int).swapaxes(1, 2)):
        for o in range(1, y.shape[1]):
            yield o % 4 == 0, (y[:, o] - y[:, o - 1]) ** 2


@pytest.fixture(scope="module")
def base():
    return fields(400, 0)


@pytest.fixture(scope="module")
def other():
    return fields(400, 1)


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 8), (12, 20, 4)])
def test_the_formula_counts_the_pairs_that_are_found_one_by_one(height, width, side):
    apart = {False: 0, True: 0}
    for length, lines in ((height, width), (width, height)):
        for o in range(1, length):
            apart[o % side == 0] += lines
    assert seams.pair_counts(height, width, side) == (apart[True], apart[False])


def test_the_edge_ratio_is_that_of_the_pairs_taken_one_by_one():
    x = coarse()
    across = [square.mean() for edge, square in steps(x) if edge]
    within = [square.mean() for edge, square in steps(x) if not edge]
    assert seams.edge_ratio(x, 2) == pytest.approx(np.mean(across) / np.mean(within), rel=1e-6)


def test_the_lagged_pair_has_the_seam_in_its_middle():
    x = np.zeros((1, 12, 12, 1))
    x[:, [4, 10]] = 1  # at lag 4 in blocks of 6: the pair across is pixels 4 and 7
    across = 1 / 2  # one direction of two
    within = np.mean([0, 1, 0, 0, 1, 0]) / 2
    assert seams.lagged_ratio(x, 2, 4) == pytest.approx(across / within)


def test_the_phase_profile_is_that_of_the_definition():
    y = coarse(seed=1).astype(float)
    for o, found in zip(range(2, 7), seams.phase_profile(y), strict=True):
        squares = [
            ((z[o] - z[o - 1]) - ((z[o - 1] - z[o - 2]) + (z[o + 1] - z[o])) / 2) ** 2
            for z in (np.moveaxis(y, 1, 0), np.moveaxis(y, 2, 0))
        ]
        assert found == pytest.approx(np.mean(squares), rel=1e-6)


def test_two_sets_without_seams_give_the_null(base, other):
    found = seams.seams(base, other, BLOCKS, LAG)
    assert [found[k] for k in ("ratio", "lagged", "phase")] == pytest.approx([1, 1, 1], abs=0.05)


@pytest.mark.parametrize("figure", ["ratio", "lagged", "phase"])
def test_the_more_images_are_stitched_the_higher_the_figure(base, other, figure):
    shares = (0, 0.05, 1)
    found = [seams.seams(stitched(base, s), other, BLOCKS, LAG)[figure] for s in shares]
    assert found[0] == pytest.approx(1, abs=0.05)
    assert min(np.diff(found)) > 0.02


def test_what_true_images_have_at_the_place_of_the_seam_is_no_seam(base, other):
    nose = np.zeros((SIZE, SIZE, 1))
    nose[SIZE // 2 :] = 1
    assert seams.edge_ratio(base + nose, BLOCKS) > 2
    assert seams.lagged_ratio(base + nose, BLOCKS, LAG) > 1.1
    found = seams.seams(base + nose, other + nose, BLOCKS, LAG)
    assert [found[k] for k in ("ratio", "lagged", "phase")] == pytest.approx([1, 1, 1], abs=0.05)


def test_a_blur_over_the_seam_pulls_the_edge_ratio_below_the_null(base, other):
    assert seams.seams(feathered(stitched(base)), other, BLOCKS, LAG)["ratio"] < 0.8


def test_a_blur_over_the_seam_does_not_hide_it_from_a_wider_lag(base, other):
    assert seams.seams(feathered(stitched(base)), other, BLOCKS, LAG)["lagged"] > 1.4


@pytest.mark.parametrize("share", [0.05])
def test_a_stitched_seam_ranks_first(base, other, share):
    assert seams.seams(stitched(base, share), other, BLOCKS, LAG)["phase_rank"] == 1


def test_a_blurred_seam_ranks_among_the_last(base, other):
    found = seams.seams(feathered(stitched(base)), other, BLOCKS, LAG)
    assert found["phase_rank"] > found["phase_offsets"] - 3


def test_how_many_images_are_held_at_once_does_not_matter(monkeypatch):
    drawn, true = coarse(size=16), coarse(7, seed=1, size=16)
    expected = seams.seams(drawn, true, 2, 4)
    monkeypatch.setattr(seams, "CHUNK", 4 * drawn[0].size)
    assert seams.seams(drawn, true, 2, 4) == pytest.approx(expected, rel=1e-9)


def test_images_constant_within_their_blocks_are_refused(base):
    shade = np.random.default_rng(0).random((5, 1, 1, 2))
    quilts = stitched(np.broadcast_to(shade, (5, SIZE, SIZE, 2)), blocks=4)
    with pytest.raises(InputError, match="within blocks of 5 images are all alike"):
        seams.seams(quilts, base, 4, LAG)
    with pytest.raises(InputError, match="within blocks of 5 images are all alike"):
        seams.lagged_ratio(quilts, 4, LAG)


def test_true_images_constant_across_the_block_edges_are_refused(base):
    true = base[:9].copy()
    for axis in (1, 2):
        edge = np.moveaxis(true, axis, 0)
        edge[SIZE // 2] = edge[SIZE // 2 - 1]
    with pytest.raises(InputError, match="across block edges of 9 true images are all alike"):
        seams.seams(base, true, BLOCKS, 2)


@pytest.mark.parametrize("blocks", [1, 3, 32])
@pytest.mark.parametrize("figure", [seams.edge_ratio, lambda x, n: seams.lagged_ratio(x, n, 2)])
def test_blocks_that_do_not_fit_are_refused(base, figure, blocks):
    with pytest.raises(InputError, match=f"32 x 32 pixels with {blocks}: choose `blocks`"):
        figure(base, blocks)


@pytest.mark.parametrize("lag", [3, 18])
def test_a_lag_that_does_not_fit_the_blocks_is_refused(base, lag):
    with pytest.raises(InputError, match="take an even number from 2 to 16"):
        seams.lagged_ratio(base, BLOCKS, lag)
