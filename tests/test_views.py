"""What of an image the network sees: every block of a grid, or patches that lie where they say."""

import toy
from rissole.denoiser import views
from rissole.denoiser.settings import Variant

import pytest
import torch

CPU = torch.device("cpu")


def patches(shares):
    return [{"parts": parts, "share": share} for parts, share in shares.items()]


def row(**changes):
    settings = {
        "context": "latents",
        "space": "pixel",
        "blocks": 1,
        "patches": patches({4: 0.4, 2: 0.6}),
    }
    return Variant(**(settings | changes))


def marked(b, side=16):
    """Pictures whose two channels are the row and the column of each pixel."""
    places = torch.arange(float(side))
    return torch.stack([places[:, None].expand(side, side), places.expand(side, side)]).repeat(
        b, 1, 1, 1
    )


def test_a_patch_is_a_piece_of_its_image_and_its_coordinates_are_those_of_the_whole():
    torch.manual_seed(0)
    patches = views.Patches(row(coordinates=True), 4, torch.rand(50), torch.rand(50))
    seen = patches.cut_noisy(marked(50))
    assert seen.shape == (50, 4, 4, 4)
    down, right, x, y = seen.unbind(1)
    assert torch.equal(down.diff(dim=1), torch.ones(50, 3, 4))
    assert torch.equal(right.diff(dim=2), torch.ones(50, 4, 3))
    torch.testing.assert_close(x, right / 15 * 2 - 1)
    torch.testing.assert_close(y, down / 15 * 2 - 1)
    assert torch.equal(patches.cut(marked(50)), seen[:, :2])


def test_patches_lie_anywhere_in_the_image_up_to_its_edges():
    torch.manual_seed(0)
    patches = views.Patches(row(), 4, torch.rand(2000), torch.rand(2000))
    down, right = patches.cut(marked(2000))[:, :, 0, 0].unbind(1)
    for corner in (down, right):
        counts = torch.bincount(corner.long(), minlength=13)
        assert len(counts) == 13 and counts.min() > 100  # of 154


def test_sizes_are_drawn_in_their_shares_and_smaller_patches_are_more():
    torch.manual_seed(0)
    shares = {4: 0.2, 2: 0.3, 1: 0.5}
    found = [views.drawn(row(patches=patches(shares)), 3, CPU) for _ in range(3000)]
    for parts, share in shares.items():
        of = [view for view in found if view.copies == parts]
        assert len(of) / 3000 == pytest.approx(share, abs=0.03)
        assert len(of[0].cut(marked(3 * parts))) == 3 * parts
        assert of[0].cut(marked(3 * parts)).shape[-1] == 16 // parts


def test_a_row_without_patches_sees_its_grid_and_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    view = views.drawn(toy.row(), 3, CPU)
    assert view.copies == 1 and view.blocks == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_a_grid_that_tells_coordinates_tells_those_of_the_whole():
    seen = views.Grid(toy.row(coordinates=True)).cut_noisy(marked(1, 8))
    assert seen.shape == (4, 4, 4, 4)
    torch.testing.assert_close(seen[:, 2], seen[:, 1] / 7 * 2 - 1)
    torch.testing.assert_close(seen[:, 3], seen[:, 0] / 7 * 2 - 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patches": [{"parts": 2, "share": 0.5}]}, "add up to 1"),
        ({"blocks": 2}, "blocks: 1"),
        ({"position": True}, "without neighbours and position"),
    ],
)
def test_patches_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        row(**changes)
