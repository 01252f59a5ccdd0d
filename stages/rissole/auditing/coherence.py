"""Whether the blocks of an image belong together: what no seam shows and no distance measures."""

from pathlib import Path

from rissole.auditing import seams
from rissole.auditing.distances import nearest
from rissole.core import files, fingerprint, numerics
from rissole.harness.errors import InputError
from rissole.latent import blocks as grid

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS, BATCH = 300, 128
DONORS = 12  # nearest neighbours that half of the collages take their blocks from


def colour_correlation(z: Tensor, blocks: int) -> float:
    """Correlation over images of the channel means of two blocks, mean over pairs and channels.

    True images have a high one, blocks drawn independently 0, copies that of true images.

    Args:
        z: latents (n, c, h, w).
        blocks: per side.
    """
    means = grid.cut(z, blocks).mean((-1, -2)).double()  # n p c
    means = (means - means.mean(0)) / means.std(0).clamp_min(1e-12)
    correlation = torch.einsum("npc,nqc->cpq", means, means) / (len(z) - 1)
    above = torch.triu(torch.ones(blocks**2, blocks**2, dtype=torch.bool, device=z.device), 1)
    return correlation[:, above].mean().item()


def collages(z: Tensor, donors: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    """Latents (n, c, h, w) put together of blocks, each from a random donor.

    Args:
        z: latents (m, c, h, w).
        donors: rows of `z` (n, k).
        blocks: per side.
        generator: on the CPU.
    """
    choice = torch.randint(donors.shape[1], (len(donors), blocks**2), generator=generator)
    rows = donors.gather(1, choice.to(donors.device))
    return grid.join(grid.cut(z, blocks)[rows, torch.arange(blocks**2)], blocks)


def strangers(images: int, n: int, generator: torch.Generator) -> Tensor:
    """For each of `n` collages, so many random images that two blocks rarely share one, (n, 64)."""
    return torch.randint(images, (n, 64), generator=generator)


class Detector(nn.Module):
    """Tells collages of blocks from whole latents; has never seen a generated image."""

    def __init__(self, channels: int):
        super().__init__()
        widths = (channels, 32, 64, 64)
        layers = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [
                nn.Conv2d(a, b, 3, padding=1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
                nn.MaxPool2d(2, ceil_mode=True),  # a latent of 4 x 4 has nothing left to halve
            ]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(2 * widths[-1], 1)

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n), above 0 for collages, of latents (n, c, h, w)."""
        maps = self.layers(z).flatten(2)
        return self.last(torch.cat([maps.mean(2), maps.amax(2)], 1)).squeeze(1)


def train_detector(z: Tensor, blocks: int, seed: int) -> Detector:
    """Train a detector on train latents (n, c, h, w) and on collages of them.

    Half of the collages take their blocks from anywhere, half from the nearest neighbours.
    """
    generator = torch.Generator().manual_seed(numerics.seeded(seed, blocks))
    torch.manual_seed(numerics.seeded(seed, blocks))
    detector = Detector(z.shape[1]).to(z.device)
    kin = nearest(z.flatten(1), z.flatten(1), DONORS, torch.arange(len(z), device=z.device))[0]
    optimiser = torch.optim.Adam(detector.parameters(), 2e-3)
    for _ in range(STEPS):
        rows = torch.randint(len(z), (BATCH,), generator=generator).to(z.device)
        near = kin[rows[: BATCH // 2]]
        far = strangers(len(z), BATCH // 2, generator).to(z.device)
        mixed = torch.cat([_mixed(z, donors, blocks, generator) for donors in (near, far)])
        logits = detector(torch.cat([z[rows], mixed]))
        target = (torch.arange(2 * BATCH, device=z.device) >= BATCH).to(logits.dtype)
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimiser.step()
    return detector.eval()


def _mixed(z: Tensor, donors: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    """As `collages`, without cutting images that no block is taken from."""
    picked, places = donors.unique(return_inverse=True)
    return collages(z[picked], places, blocks, generator)


@torch.inference_mode()
def collage_rate(detectors: list[Detector], z: Tensor) -> float:
    """Share of latents (n, c, h, w) taken for collages, mean over the detectors."""
    logits = [torch.cat([detector(part) for part in z.split(512)]) for detector in detectors]
    return torch.stack([(x > 0).double().mean() for x in logits]).mean().item()


def measure(
    z: Tensor,
    pictures: np.ndarray,
    val_z: Tensor,
    reconstructions: np.ndarray,
    detectors: list[Detector],
    seam_blocks: int,
    blocks: int,
) -> dict[str, float]:
    """Seams and coherence of drawn images, two things that neither imply nor exclude each other.

    Args:
        z: their latents (n, c, h, w).
        pictures: themselves, uint8 (n, h, w, 3).
        val_z: latents of held-out images (m, c, h, w).
        reconstructions: the VQ-GAN's pictures of these, uint8 (m, h, w, 3).
        detectors: of collages.
        seam_blocks: per side of the grid on which seams are looked for.
        blocks: per side of the grid whose colours are compared, the same for all rows.

    Returns:
        The figures of `seams.seams`, of the pictures and (`latent_`) of the latents, where a null
        is 1 but for the rank; `colour_correlation`; and `collage_excess`, the share taken for
        collages beyond that of the held-out images.
    """
    latents = [of.movedim(1, -1).cpu().numpy() for of in (z, val_z)]
    lags = _lag(pictures, seam_blocks, 8), _lag(latents[0], seam_blocks, 4)
    found = seams.seams(pictures, reconstructions, seam_blocks, lags[0])
    of_latents = seams.seams(*latents, seam_blocks, lags[1])
    found |= {f"latent_{name}": value for name, value in of_latents.items()}
    excess = collage_rate(detectors, z) - collage_rate(detectors, val_z)
    found |= {"colour_correlation": colour_correlation(z, blocks), "collage_excess": excess}
    return {name: round(float(value), 4) for name, value in found.items()}


def _lag(images: np.ndarray, blocks: int, lag: int) -> int:
    return min(lag, images.shape[1] // blocks // 2 * 2)


def reference(detectors: list[Detector], val: Tensor, blocks: int, seed: int) -> dict[str, float]:
    """What held-out latents (n, c, h, w) score, and collages of them: nothing drawn is in it."""
    generator = torch.Generator().manual_seed(numerics.seeded(seed))
    mixed = collages(val, strangers(len(val), len(val), generator), blocks, generator)
    return {
        "colour_correlation": round(colour_correlation(val, blocks), 4),
        "colour_correlation_shuffled": round(colour_correlation(mixed, blocks), 4),
        "collages": round(collage_rate(detectors, val), 4),
        "collages_shuffled": round(collage_rate(detectors, mixed), 4),
    }


def save(path: Path, detectors: list[Detector], latents: str) -> None:
    """Write detectors as safetensors, with the identity of the latents that they learnt from."""
    tensors = {
        f"{number}.{name}": tensor
        for number, detector in enumerate(detectors)
        for name, tensor in detector.state_dict().items()
    }
    about = {"channels": detectors[0].layers[0].in_channels, "latents": latents}
    files.write_tensors(path, tensors, about)


def load(path: Path, latents: str) -> list[Detector]:
    """Read what `save` wrote. Raises InputError where it is something else, or of other latents."""
    tensors, about = files.read_tensors(path)
    other = "detectors that learnt from other latents than those of data/latents"
    fingerprint.check(path, about.get("latents"), latents, other)
    try:
        detectors = nn.ModuleList(Detector(about["channels"]) for _ in range(2))
        detectors.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: no collage detectors of this version ({detail})") from None
    return list(detectors.eval())
