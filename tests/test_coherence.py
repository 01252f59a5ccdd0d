"""Coherence: blocks of true images belong together, those of collages do not, and both show."""

from rissole.auditing import coherence
from rissole.auditing.distances import nearest
from rissole.core import files
from rissole.harness.errors import InputError
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
        patch.setattr(coherence, "STEPS", 30)
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


def test_a_collage_takes_each_block_from_a_donor_at_its_own_position():
    z = tiles((10.0 * torch.arange(9)[:, None] + torch.arange(4))[..., None])
    donors = torch.tensor([[1, 2, 3], [4, 4, 4], [8, 7, 0]]).repeat(20, 1)
    found = blocks.cut(coherence.collages(z, donors, BLOCKS, generator()), BLOCKS)
    assert (found == found[..., :1, :1]).all()
    image, position = found[:, :, 0, 0, 0].long() // 10, found[:, :, 0, 0, 0].long() % 10
    assert torch.equal(position, torch.arange(4).expand(60, 4))
    assert (image[:, :, None] == donors[:, None]).any(2).all()


def test_a_detector_tells_collages_from_images_that_it_has_not_seen(detectors, held_out):
    for detector in detectors:
        assert coherence.collage_rate([detector], held_out) < 0.2
        assert coherence.collage_rate([detector], mixed(held_out)) > 0.9


def test_a_detector_sees_collages_of_neighbours_too(detectors, held_out):
    flat = held_out.flatten(1)
    kin, _ = nearest(flat, flat, 4, torch.arange(len(flat)))
    collage = coherence.collages(held_out, kin, BLOCKS, generator())
    assert coherence.collage_rate(detectors, collage) > 0.7


@pytest.mark.parametrize("dose", [0.05, 0.2])
def test_the_share_taken_for_collages_follows_the_share_of_them(detectors, held_out, dose):
    n = round(dose * len(held_out))
    none, every = (coherence.collage_rate(detectors, x) for x in (held_out, mixed(held_out)))
    found = coherence.collage_rate(detectors, torch.cat([mixed(held_out)[:n], held_out[n:]]))
    assert found == pytest.approx(dose * every + (1 - dose) * none, abs=0.03)


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
