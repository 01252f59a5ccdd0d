"""Everything it takes to draw the images of one row, read once; any batch of them, any time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rissole.core import files
from rissole.dataset import images
from rissole.denoiser import conditioning, denoiser
from rissole.denoiser.conditioning import Conditioning
from rissole.drawing import samplers, sampling
from rissole.drawing.settings import Row, Sample
from rissole.first_stage import vqgan
from rissole.harness.errors import InputError
from rissole.latent import latents
from rissole.latent.latents import Latents, read_neighbours
from rissole.latent.pixels import Pixels

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Drawing:
    """One row's way of drawing.

    Attributes:
        sample: sampler, steps, images and batch.
        seed: of the noise.
        checkpoint: SHA-256 of the denoiser's file.
        network: the denoiser.
        told: the train images, as it is told of them.
        conditioning: what it is told.
        first_stage: decodes.
        database: the train latents, wherever they are.
        queries: ids of the query images, int64 (n,), or None.
        neighbours: rows of their neighbours in the database, (n, k), or None.
    """

    sample: Sample
    seed: int
    checkpoint: str
    network: denoiser.Denoiser
    told: Latents | Pixels
    conditioning: Conditioning
    first_stage: vqgan.VQGAN
    database: latents.Latents
    queries: np.ndarray | None
    neighbours: Tensor | None

    def batches(self) -> list[range]:
        """The numbers of the images that are drawn together."""
        starts = range(0, self.sample.images, self.sample.batch)
        return [range(s, min(s + self.sample.batch, self.sample.images)) for s in starts]

    def draw(
        self, batch: range, watch: Callable[[Tensor], None] = lambda z: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the images of one of the `batches`.

        The last bits of a sum depend on what is computed beside it: the same batch on the same
        machine gives the same bits, one image alone may not.

        Args:
            batch: numbers of the images.
            watch: called with their latents as each step leaves them; `pictures` shows these.

        Returns:
            As `pictures`.
        """
        told = self.neighbours
        if told is not None:
            told = told[batch.start : batch.stop].to(self.conditioning.device)
        return self.pictures(
            sampling.sample_latents(
                self.network, self.conditioning, self.sampler, told, batch, self.seed, watch
            )
        )

    @torch.inference_mode()
    def pictures(self, z: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Latents, normalised as the denoiser's are, as what one looks at.

        Args:
            z: (b, c, H, W).

        Returns:
            Pictures uint8 (b, h, w, 3), and their codes, uint16: those that they were decoded
            from, or, of a row that denoises pixels, what the first stage makes of them.
        """
        finish = {"latent": self._decoded, "pixel": self._encoded}[self.network.row.space]
        pictures, codes = finish(self.conditioning.raw(z))
        return pictures, codes.cpu().numpy().astype(np.uint16)

    def _decoded(self, z: Tensor) -> tuple[np.ndarray, Tensor]:
        codes = self.first_stage.snap(z)
        z = F.embedding(codes, self.database.codebook.to(z.device)).movedim(-1, 1)
        return images.to_uint8(self.first_stage.decode(z)), codes

    def _encoded(self, z: Tensor) -> tuple[np.ndarray, Tensor]:
        pictures = images.to_uint8(z)
        return pictures, self.first_stage.encode(images.to_float(pictures, z.device))

    @property
    def sampler(self) -> samplers.Sampler:
        """The rule and the noise levels that it visits."""
        return samplers.build(self.network.ldm, self.sample, self.conditioning.limit)


@dataclass(frozen=True)
class Paths:
    """Where what a row draws with lies.

    Attributes:
        split: folder of the pictures.
        latents: folder.
        vqgan: file of the first stage.
        denoiser: file of the weights.
        table: folder of the neighbour table, where the row retrieves.
    """

    split: Path
    latents: Path
    vqgan: Path
    denoiser: Path
    table: Path

    @classmethod
    def of(cls, row: Row, data: Path) -> "Paths":
        """Those of a row, below a folder that holds the outputs of all stages."""
        return cls(
            split=data / "split",
            latents=data / "latents",
            vqgan=data / "vqgan/vqgan.safetensors",
            denoiser=data / "ldm" / row.variant / "best.safetensors",
            table=data / row.context,
        )


def read(row: Row, sample: Sample, paths: Paths, device: torch.device) -> Drawing:
    """Read what a row draws with.

    Args:
        row: variant, context and seed.
        sample: section `sample` as the row changes it.
        paths: of all of it.
        device: to draw on.

    Raises:
        InputError: there are fewer queries than images, or not the k neighbours that the variant
            was trained with; or denoiser, latents, neighbours and VQ-GAN do not belong together.
    """
    database = latents.read(paths.latents, "train")
    network = denoiser.load(paths.denoiser, database).to(device)
    told = conditioning.database(network.row, database, paths.table, paths.split).to(device)
    queries = neighbours = None
    if network.row.neighbours != "none":
        queries, neighbours = _read_queries(row, network, sample.images, database, paths.table)
    return Drawing(
        sample=sample,
        seed=network.row.seed if row.seed is None else row.seed,
        checkpoint=files.digest(paths.denoiser),
        network=network,
        told=told,
        conditioning=Conditioning(network.row, told, network.ldm.normalise),
        first_stage=vqgan.load(paths.vqgan, database.first_stage).to(device),
        database=database,
        queries=queries,
        neighbours=neighbours,
    )


def _read_queries(
    row: Row, network: denoiser.Denoiser, images: int, database: latents.Latents, table: Path
) -> tuple[np.ndarray, Tensor]:
    path = table / "queries.parquet"
    queries, neighbours = read_neighbours(path, database)
    if len(queries) < images:
        raise InputError(
            f"params.yaml: sample.images is {images}: {path} has {len(queries)} queries; draw"
            " fewer, or raise `queries` where there are more train images"
        )
    k = network.sizes["k"]
    if network.row.neighbours == "stack" and neighbours.shape[1] != k:
        raise InputError(
            f"{path}: {neighbours.shape[1]} neighbours each; variant {row.variant} was trained with"
            f" {k} and, stacking them, takes no other number; name another `context` in the row"
        )
    return queries[:images], neighbours[:images]
