"""Patch-DM: features are shared across patches, and what is drawn tiles the latent."""

import toy
from rissole.denoiser import denoiser, training
from rissole.denoiser.conditioning import Conditioning, Told
from rissole.denoiser.patch_dm import PatchDM
from rissole.denoiser.settings import Variant
from rissole.latent import blocks

import pytest
import torch
import torch.nn.functional as F

ROW = Variant(context="latents", network="patch_dm", collage=2, blocks=1)
RETRIEVES = Variant(
    context="neighbours/main", neighbours="stack", network="patch_dm", collage=2, blocks=1
)
TIME = torch.tensor([3, 700])
NOTHING = Told(None, None, None, None)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = PatchDM(ROW, toy.ldm(widths=[16, 32]), 3, 0)
    network.unet.last.weight.data.normal_()  # it starts at zero
    return network


def predict(network, z_t, told=NOTHING):
    return network(z_t, TIME, network.context(told), None)


def reach(network, at):
    """Where the prediction changes when the noisy latent does at one place."""
    z_t = torch.randn(2, 3, 16, 16)
    other = z_t.clone()
    other[:, :, at[0], at[1]] += 1
    return (predict(network, z_t) != predict(network, other)).any(0).any(0)


def test_a_change_is_felt_across_a_border_by_the_patches_that_share_its_features(network):
    """Of 16 pixels the four middle quarters were encoded together: all four patches feel them."""
    network.eval()
    assert reach(network, (5, 5)).unflatten(0, (2, 8)).unflatten(2, (2, 8)).any(3).any(1).all()
    corner = reach(network, (1, 1))  # encoded with what lies around the corner alone
    assert corner[:8, :8].any()
    assert not corner[8:].any()
    assert not corner[:, 8:].any()


def test_in_training_the_patches_that_were_encoded_are_decoded_too(network):
    z_t = torch.randn(2, 3, 16, 16)
    shifted, plain = predict(network, z_t).chunk(2)
    torch.testing.assert_close(shifted, predict(network.eval(), z_t))
    padded = blocks.cut(F.pad(z_t, (4,) * 4), 3).flatten(0, 1)
    place = torch.tensor([10 * i + 2 * j for i in range(3) for j in range(3)])
    embedded = [network.time(TIME).repeat_interleave(9, 0), network.place(place).repeat(2, 1)]
    alone = network.unet(network.stem(padded, network.context(NOTHING)), embedded)
    whole = blocks.join(alone.unflatten(0, (2, 9)), 3)[..., 4:-4, 4:-4]
    torch.testing.assert_close(plain, whole)


def test_neighbours_are_told_patch_by_patch_and_every_parameter_is_live():
    torch.manual_seed(0)
    network = denoiser.build(RETRIEVES, toy.ldm(widths=[16, 32]), 3, 5)
    network.unet.last.weight.data.normal_()
    near = torch.randn(2, 5, 3, 16, 16)
    other = near.clone()
    other[:, 3, :, :4, :4] += 1  # within the patch of the corner
    z_t = torch.randn(2, 3, 16, 16)
    one, two = (predict(network, z_t, Told(of, None, None, None)) for of in (near, other))
    felt = (one != two).any(0).any(0)
    assert felt[:8, :8].any()
    assert not felt[8:].any()
    one.square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("shape", [(16, 16), (14, 14), (28, 20), (16, 32)])
def test_latents_of_any_size_are_predicted_whole(shape, network):
    """Sides that cannot be halved evenly are padded, as in the U-Net, and cropped."""
    z_t = torch.randn(2, 3, *shape)
    assert predict(network, z_t).shape == (4, 3, *shape)
    assert predict(network.eval(), z_t).shape == z_t.shape


def test_it_comes_back_from_its_file_as_it_was(tmp_path):
    network = denoiser.build(RETRIEVES, toy.ldm(), 2, 3).eval()
    denoiser.save(tmp_path / "best.safetensors", network, step=3, latents="")
    again = denoiser.load(tmp_path / "best.safetensors", toy.latents())
    assert (type(again), again.row, again.sizes) == (PatchDM, RETRIEVES, network.sizes)
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_the_loss_of_two_answers_is_the_mean_of_their_losses():
    train = toy.latents(side=16)
    conditioning = Conditioning(ROW, train, normalise=True)
    images, ldm, rows = training.Images(train.codes, None), toy.ldm(), torch.arange(4)

    def loss(*answers):
        class Answers(torch.nn.Module):
            def context(self, told):
                return None

            def forward(self, z_t, *of):
                return torch.cat([torch.full_like(z_t, answer) for answer in answers])

        torch.manual_seed(0)
        batch = training.draw(conditioning, ldm, rows, conditioning.grid)
        return training.block_loss(Answers(), conditioning, ldm, images, batch)

    torch.testing.assert_close(loss(0.0, 1.0), (loss(0.0) + loss(1.0)) / 2)
    assert loss(0.0) != loss(1.0)
