"""Coherence: blocks of true images belong together, those of collages do not, and both show."""

from rissole.auditing import coherence
from rissole.auditing.distances import nearest
from rissole.ground import files
from rissole.ground.errors import InputError
from rissole.latent import blocks

import numpy as np
import pytest
import torch
import torch.nn.functional as F

BLOCKS = 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fields(n, seed, side=8):
    """Random latents (n, 3, side, side): a colour each, large smooth shapes, some texture."""
    draw = generator(seed)
    shapes = torch.randn(n, 3, 3, 3, generator=draw)
    smooth = F.interpolate(shapes, size=side, mode="bicubic", align_corners=True)
    texture = torch.randn(n, 3, side, side, generator=draw)
    return torch.randn(n, 3, 1, 1, generator=draw) + smooth + 0.3 * texture


def pictures(z):
    """Pictures uint8 (n, 32, 32, 3) of latents."""
    large = F.interpolate(z, size=32, mode="bicubic", align_corners=True)
    texture = 4 * torch.randn(large.shape, generator=generator(len(z)))
    return (128 + 30 * large + texture).clamp(0, 255).byte().movedim(1, -1).numpy()


def mixed(z, seed=0):
    """As many collages of blocks from anywhere."""
    draw = generator(seed)
    return coherence.collages(z, coherence.strangers(len(z), len(z), draw), BLOCKS, draw)


def tiles(means):
    """Latents of blocks of one colour each, (n, c, 8, 8), from block means (n, 4, c)."""
    return blocks.join(means[..., None, None].expand(*means.shape, 4, 4), BLOCKS)


@pytest.fixture(scope="module")
def detectors():
    """Two, each quickly trained on one half of a train set."""
    z = fields(400, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coherence, "STEPS", 50)
        return [
            coherence.train_detector(half, BLOCKS, seed) for seed, half in enumerate(z.chunk(2))
        ]


@pytest.fixture(scope="module")
def held_out():
    return fields(300, 1)


def test_blocks_of_equal_means_have_correlation_1():
    means = torch.randn(50, 1, 3, generator=generator()).expand(50, 4, 3)
    texture = torch.randn(50, 3, 8, 8, generator=generator(1))
    texture -= tiles(blocks.cut(texture, BLOCKS).mean((-1, -2)))
    assert coherence.colour_correlation(tiles(means) + texture, BLOCKS) == pytest.approx(1)


def test_independent_blocks_have_correlation_0():
    means = torch.randn(4000, 4, 3, generator=generator())
    assert coherence.colour_correlation(tiles(means), BLOCKS) == pytest.approx(0, abs=0.02)


def test_the_colour_correlation_is_the_mean_over_channels_and_pairs_of_blocks():
    z = fields(40, 0)
    means = [z[:, :, i : i + 4, j : j + 4].mean((2, 3)).numpy() for i in (0, 4) for j in (0, 4)]
    expected = [
        np.corrcoef(means[p][:, channel], means[q][:, channel])[0, 1]
        for channel in range(3)
        for p in range(4)
        for q in range(p)
    ]
    found = coherence.colour_correlation(z, BLOCKS)
    assert 0.5 < found < 0.95
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_neither_scale_nor_offset_of_a_channel_changes_the_colour_correlation():
    z, scale = fields(40, 0), torch.tensor([0.1, 3, 20]).reshape(3, 1, 1)
    expected = coherence.colour_correlation(z, BLOCKS)
    assert coherence.colour_correlation(scale * z + 5, BLOCKS) == pytest.approx(expected, rel=1e-4)


def test_images_all_alike_have_no_colour_correlation():
    assert coherence.colour_correlation(torch.ones(5, 3, 8, 8), BLOCKS) == 0


def test_a_collage_takes_each_block_from_a_donor_at_its_own_position():
    z = tiles((10.0 * torch.arange(9)[:, None] + torch.arange(4))[..., None])
    donors = torch.tensor([[1, 2, 3], [4, 4, 4], [8, 7, 0]]).repeat(20, 1)
    found = blocks.cut(coherence.collages(z, donors, BLOCKS, generator()), BLOCKS)
    assert (found == found[..., :1, :1]).all()
    image, position = found[:, :, 0, 0, 0].long() // 10, found[:, :, 0, 0, 0].long() % 10
    assert torch.equal(position, torch.arange(4).expand(60, 4))
    assert (image[:, :, None] == donors[:, None]).any(2).all()


def test_all_donors_are_taken_about_equally_often():
    z = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    found = coherence.collages(z, torch.arange(5).expand(500, 5), BLOCKS, generator())
    shares = blocks.cut(found, BLOCKS)[..., 0, 0].flatten().long().bincount() / 2000
    assert shares.tolist() == pytest.approx([0.2] * 5, abs=0.03)


def test_two_blocks_of_strangers_seldom_share_an_image():
    z = torch.arange(1000.0).reshape(1000, 1, 1, 1).expand(1000, 1, 8, 8)
    found = blocks.cut(mixed(z), BLOCKS)[..., 0, 0].flatten(1)
    ordered = found.sort(1).values
    assert (ordered[:, 1:] == ordered[:, :-1]).any(1).double().mean() < 0.15
    assert found.unique().numel() > 950


def test_a_detector_tells_collages_from_images_that_it_has_not_seen(detectors, held_out):
    for detector in detectors:
        assert coherence.collage_rate([detector], held_out) < 0.2
        assert coherence.collage_rate([detector], mixed(held_out)) > 0.9


def test_a_detector_sees_collages_of_neighbours_too(detectors, held_out):
    flat = held_out.flatten(1)
    kin, _ = nearest(flat, flat, 4, torch.arange(len(flat)))
    collage = coherence.collages(held_out, kin, BLOCKS, generator())
    assert coherence.collage_rate(detectors, collage) > 0.7


@pytest.mark.parametrize("dose", [0, 0.05, 0.2, 1])
def test_the_share_taken_for_collages_follows_the_share_of_them(detectors, held_out, dose):
    n = round(dose * len(held_out))
    none, every = (coherence.collage_rate(detectors, x) for x in (held_out, mixed(held_out)))
    found = coherence.collage_rate(detectors, torch.cat([mixed(held_out)[:n], held_out[n:]]))
    assert found == pytest.approx(dose * every + (1 - dose) * none, abs=0.03)


def test_the_rate_of_many_images_is_the_mean_over_all(detectors):
    z = torch.cat([fields(500, 2), mixed(fields(100, 3))])
    first, last, whole = (coherence.collage_rate(detectors, x) for x in (z[:500], z[500:], z))
    assert whole == pytest.approx((500 * first + 100 * last) / 600)


def test_the_rate_is_the_mean_over_detectors(detectors):
    z = mixed(fields(200, 2)) + fields(200, 3)
    each = [coherence.collage_rate([detector], z) for detector in detectors]
    assert each[0] != each[1]
    assert coherence.collage_rate(detectors, z) == pytest.approx(np.mean(each))


def test_a_detector_is_a_function_of_its_seed(monkeypatch):
    monkeypatch.setattr(coherence, "STEPS", 2)
    z = fields(60, 0)
    a, b, c = (coherence.train_detector(z, BLOCKS, seed)(z) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_two_halves_of_one_law_measure_as_one(detectors):
    z, val = fields(300, 3), fields(300, 4)
    found = coherence.measure(z, pictures(z), val, pictures(val), detectors, BLOCKS, BLOCKS)
    assert np.isfinite(list(found.values())).all()
    for name in ("ratio", "lagged", "phase"):
        assert [found[name], found[f"latent_{name}"]] == pytest.approx([1, 1], abs=0.15)
    expected = coherence.colour_correlation(val, BLOCKS)
    assert found["colour_correlation"] == pytest.approx(expected, abs=0.05)
    rate, null = (coherence.collage_rate(detectors, x) for x in (z, val))
    assert null > 0.01
    assert found["collage_excess"] == pytest.approx(rate - null, abs=1e-4)
    assert found["collage_excess"] == pytest.approx(0, abs=0.08)


def test_of_collages_every_figure_says_so(detectors, held_out):
    z = mixed(held_out)
    found = coherence.measure(
        z, pictures(z), held_out, pictures(held_out), detectors, BLOCKS, BLOCKS
    )
    assert found["collage_excess"] > 0.7
    assert found["colour_correlation"] == pytest.approx(0, abs=0.1)
    assert min(found[name] for name in ("lagged", "latent_ratio", "latent_lagged")) > 1.2
    assert found["latent_phase_rank"] == 1


def test_blocks_too_small_for_the_usual_lag_are_measured_by_a_smaller_one(detectors):
    z, val = fields(50, 3), fields(50, 4)
    found = coherence.measure(z, pictures(z), val, pictures(val), detectors, 4, BLOCKS)
    assert np.isfinite(list(found.values())).all()


def test_the_reference_holds_what_whole_images_and_their_collages_score(detectors, held_out):
    found = coherence.reference(detectors, held_out, BLOCKS, seed=0)
    expected = coherence.colour_correlation(held_out, BLOCKS)
    assert found["colour_correlation"] == pytest.approx(expected, abs=1e-4)
    assert found["colour_correlation_shuffled"] == pytest.approx(0, abs=0.1)
    assert found["collages"] < 0.2
    assert found["collages_shuffled"] > 0.9


def test_detectors_are_the_same_after_reading(tmp_path, detectors, held_out):
    coherence.save(tmp_path / "collages.safetensors", detectors, "ours")
    again = coherence.load(tmp_path / "collages.safetensors", "ours")
    assert len(again) == 2
    with torch.inference_mode():
        for a, b in zip(detectors, again, strict=True):
            assert torch.equal(a(held_out), b(held_out))


def test_detectors_of_other_latents_are_refused(tmp_path, detectors):
    coherence.save(tmp_path / "collages.safetensors", detectors, "ours")
    with pytest.raises(InputError, match=r"collages\.safetensors: .* other latents"):
        coherence.load(tmp_path / "collages.safetensors", "theirs")


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "collages.safetensors"
    with pytest.raises(InputError, match="does not exist"):
        coherence.load(path, "")
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"collages\.safetensors: cannot be read"):
        coherence.load(path, "")


@pytest.mark.parametrize("about", [{}, {"channels": 3}])
def test_a_file_of_something_else_is_refused(tmp_path, about):
    path = tmp_path / "collages.safetensors"
    files.write_tensors(path, {"codebook": torch.zeros(4, 3)}, about | {"latents": ""})
    with pytest.raises(InputError, match="no collage detectors of this version"):
        coherence.load(path, "")


@pytest.mark.parametrize("side", [2, 4, 7, 16])
def test_latents_of_any_side_are_looked_at(side):
    z = torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert coherence.Detector(3)(z).isfinite().all()


def test_colours_are_compared_on_the_common_grid_whatever_the_seams_are_looked_for_on(detectors):
    z, val = fields(50, 3), fields(50, 4)
    coarse, fine = (
        coherence.measure(z, pictures(z), val, pictures(val), detectors, grid, BLOCKS)
        for grid in (BLOCKS, 4)
    )
    assert coarse["colour_correlation"] == fine["colour_correlation"]
    assert coarse["phase_rank"] != fine["phase_rank"] or coarse["ratio"] != fine["ratio"]
