"""How near a step comes to what the machine can do, what bounds it, and what each remedy gains."""

import copy
import time

from rissole.denoiser.unet import UNet
from rissole.ground import runtime
from rissole.ground.descent import Descent
from rissole.ground.schema import LDM
from rissole.latent.latents import take
from rissole.speed.steps import learn, our_loss
from rissole.speed.timing import interleaved, peak, quiet
from rissole.speed.worlds import World, rows

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

PAPER = {"widths": [256, 512], "depth": 2, "embedding": 128, "head_width": 64, "dropout": 0.1}
PAPER_BLOCKS = 128  # in a batch: 32 images
RATE = 1e-4


def network(world: World, repeats: int, best: float) -> dict[str, float]:
    """How much of a training step is the network, and its share of the machine's best.

    The network is stem, embeddings and U-Net, forward and backward, with the loss; the rest is what
    it is fed with. The FLOP per second are those of a whole training step and of a forward pass of
    the U-Net in drawing.

    Args:
        world: of the preset.
        repeats: of each call.
        best: FLOP per second of the fastest product of matrices of the type computed in.
    """
    unet = Alone(world.denoiser.unet, world.ldm, world.ldm.batch * world.conditioning.grid.blocks)

    denoiser, conditioning, chosen = world.denoiser, world.conditioning, rows(world)
    z = conditioning.latents(take(world.images.codes, chosen))
    told = conditioning.told(world.images.neighbours[chosen], z, len(z))
    z_t, target = conditioning.grid.cut_noisy(z), conditioning.grid.cut(z)
    timestep = torch.zeros(len(z_t), dtype=torch.int64, device=z.device)

    def step() -> None:
        learn(denoiser, our_loss(world))

    def fed() -> None:
        with runtime.autocast(z.device):
            predicted = denoiser(z_t, timestep, denoiser.context(told), told.position)
        learn(denoiser, F.mse_loss(predicted.float(), target))

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = interleaved({"step": step, "fed": fed, "draw": unet.draw}, repeats)
    return {
        "train_share_outside_network": 1 - seconds["fed"] / seconds["step"],
        "train_fraction_of_peak": counter.get_total_flops() / seconds["step"] / best,
        "sample_fraction_of_peak": unet.flop / seconds["draw"] / best,
    }


def paper_size(world: World, best: float) -> dict[str, object]:
    """The same at the paper's U-Net, and what its training step spends its time on."""
    ldm = world.ldm.model_copy(update=PAPER)
    unet = Alone(UNet(ldm, 10, 1).to(world.images.codes.device), ldm, PAPER_BLOCKS)
    seconds = interleaved({"train": unet.train, "draw": unet.draw}, 3)
    cuda = world.images.codes.device.type == "cuda"
    kind = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    with quiet(), profile(activities=[kind]) as seen:
        unet.train()
    times = "self_device_time_total" if cuda else "self_cpu_time_total"
    spent = {of.key: getattr(of, times) for of in seen.key_averages()}
    largest = sorted(spent, key=spent.get, reverse=True)[:4]
    return {
        "train_fraction_of_peak": 3 * unet.flop / seconds["train"] / best,
        "sample_fraction_of_peak": unet.flop / seconds["draw"] / best,
        "train_time_in": {
            name.removeprefix("aten::"): spent[name] / sum(spent.values()) for name in largest
        },
    }


class Alone:
    """A U-Net alone, with made-up inputs of the sizes that a step gives it."""

    def __init__(self, unet: UNet, ldm: LDM, blocks: int, side: int = 8):
        device = next(unet.parameters()).device
        u = torch.randn(blocks, ldm.widths[0] // 2, side, side, device=device)
        self.u = u.contiguous(memory_format=torch.channels_last)
        self.embedded = [torch.randn(blocks, ldm.embedding, device=device)]
        self.unet = unet.to(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as counter:
            self.draw()
        self.flop = counter.get_total_flops()

    def predict(self) -> Tensor:
        """One forward pass."""
        with runtime.autocast(self.u.device):
            return self.unet(self.u, self.embedded).float()

    def train(self) -> None:
        """Forward and backward."""
        self.unet.train()
        learn(self.unet, self.predict().square().mean())

    @torch.inference_mode()
    def draw(self) -> None:
        """Forward as in drawing."""
        self.unet.eval()
        self.predict()


def remedies(world: World, repeats: int, compiled: bool) -> dict[str, dict[str, float]]:
    """What each remedy gains: seconds without it over seconds with it, of the U-Net or the update.

    Args:
        world: of the preset.
        repeats: of each call.
        compiled: whether to try torch.compile, which takes its time.
    """
    ldm, blocks = world.ldm, world.ldm.batch * world.conditioning.grid.blocks

    def fresh() -> Alone:
        return Alone(copy.deepcopy(world.denoiser.unet), ldm, blocks)

    ours = fresh()
    variants = {"ours": ours, "single precision": _Single(ours), "channels first": _Nchw(fresh())}
    calls = {f"{name} train": of.train for name, of in variants.items()}
    calls |= {f"{name} draw": of.draw for name, of in variants.items()}
    seconds = interleaved(calls, repeats)
    found = {
        gained: {
            kind: seconds[f"{without} {kind}"] / seconds[f"ours {kind}"]
            for kind in ("train", "draw")
        }
        for gained, without in (
            ("bf16 autocast", "single precision"),
            ("channels last", "channels first"),
        )
    }
    found |= _updates(world, repeats)
    if compiled:
        found["torch.compile (not kept)"] = _compiled(ours, fresh(), repeats)
    return found


class _Single:
    """A U-Net without mixed precision."""

    def __init__(self, unet: Alone):
        self._unet = unet

    def train(self) -> None:
        self._unet.unet.train()
        learn(self._unet.unet, self._unet.unet(self._unet.u, self._unet.embedded).square().mean())

    @torch.inference_mode()
    def draw(self) -> None:
        self._unet.unet.eval()
        self._unet.unet(self._unet.u, self._unet.embedded)


class _Nchw:
    """A U-Net in torch's default order of memory, with torch's own group norm."""

    def __init__(self, unet: Alone):
        for module in unet.unet.modules():
            if isinstance(module, nn.GroupNorm):
                module.__class__ = nn.GroupNorm
        unet.unet.to(memory_format=torch.contiguous_format)
        unet.u = unet.u.contiguous()
        self.train, self.draw = unet.train, unet.draw


def _updates(world: World, repeats: int) -> dict[str, dict[str, float]]:
    """The clip, the optimiser's step and the average: over one vector, and over parameters."""
    one, many = (copy.deepcopy(world.denoiser) for _ in range(2))
    descent = Descent(one)
    average = descent.weights.data.clone()
    parameters = list(many.parameters())
    averages = [parameter.detach().clone() for parameter in parameters]
    optimisers = {
        kind: torch.optim.Adam(parameters, RATE, **{kind: True}) for kind in ("fused", "foreach")
    }
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)

    def vector() -> None:
        descent.weights.grad.zero_()
        nn.utils.clip_grad_norm_([descent.weights], 1.0)
        descent.optimiser.step()
        average.lerp_(descent.weights.data, 0.01)

    def each(kind: str) -> None:
        for parameter in parameters:
            parameter.grad.zero_()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimisers[kind].step()
        torch._foreach_lerp_(averages, parameters, 0.01)

    with torch.no_grad():
        calls = {"vector": vector} | {kind: lambda kind=kind: each(kind) for kind in optimisers}
        seconds = interleaved(calls, repeats)
    return {
        "one vector, over calls for all parameters": {
            "update": seconds["fused"] / seconds["vector"]
        },
        "fused Adam, over foreach": {"update": seconds["foreach"] / seconds["fused"]},
    }


def _compiled(ours: Alone, other: Alone, repeats: int) -> dict[str, float]:
    clock = time.perf_counter()
    other.unet.compile()
    other.train()
    other.draw()
    waited = time.perf_counter() - clock
    calls = {"train": ours.train, "compiled train": other.train}
    calls |= {"draw": ours.draw, "compiled draw": other.draw}
    seconds = interleaved(calls, repeats)
    return {kind: seconds[kind] / seconds[f"compiled {kind}"] for kind in ("train", "draw")} | {
        "seconds_to_compile": waited
    }


def best_product(device: torch.device) -> dict[str, object]:
    """FLOP per second of the best product of matrices, in autocast's type and in float32."""
    with runtime.autocast(device):
        dtype = (torch.ones(1, 1, device=device) @ torch.ones(1, 1, device=device)).dtype
    return {
        "peak_gflop_per_second": peak(dtype, device) / 1e9,
        "peak_single_gflop_per_second": peak(torch.float32, device) / 1e9,
        "peak_type": str(dtype).removeprefix("torch."),
    }
