"""The first stage's view of the images: code indices, and the codebook that makes them latents."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from rissole.ground import files
from rissole.ground.errors import InputError


@dataclass(frozen=True)
class Latents:
    """The images of one split as codes; a latent is `codebook[codes]`, at 1/20 of the memory.

    Attributes:
        ids: int64 (n,), unlike each other.
        originals: int64 (n,), the id itself, or for a mirrored row that of the image it mirrors.
        groups: object (n,), a string or None.
        codes: int32 (n, h, w), rows of the codebook.
        codebook: float32 (K, c).
        mean: float32 (c,), of the train latents' channels.
        std: float32 (c,), likewise.
    """

    ids: np.ndarray
    originals: np.ndarray
    groups: np.ndarray
    codes: Tensor
    codebook: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        """The number of images, mirrored rows among them."""
        return len(self.ids)

    def table(self, normalise: bool) -> Tensor:
        """The codebook (K, c), with zero mean and unit variance per channel if asked."""
        return (self.codebook - self.mean) / self.std if normalise else self.codebook

    def z(self, rows: Tensor) -> Tensor:
        """The raw latents of int64 `rows` (...) as float32 (..., c, h, w)."""
        return F.embedding(self.codes[rows], self.codebook).movedim(-1, -3)

    def look_up(self, table: Tensor) -> Tensor:
        """All latents, float32 (n, c, h, w), through a `table` of codes."""
        return F.embedding(self.codes, table).movedim(-1, -3).contiguous()

    def apart_from(self, other: "Latents") -> np.ndarray:
        """Which images share no group and no codes with any of another split, bool (n)."""
        groups = {group for group in other.groups if group is not None}
        known = {codes.tobytes() for codes in other.codes.cpu().numpy()}
        return np.array(
            [
                group not in groups and codes.tobytes() not in known
                for group, codes in zip(self.groups, self.codes.cpu().numpy(), strict=True)
            ]
        )

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Where the int64 `ids` (...) stand, as int64 (...).

        Raises:
            InputError: an id is not among the images.
        """
        order = np.argsort(self.ids)
        places = np.searchsorted(self.ids, ids, sorter=order).clip(max=len(self) - 1)
        rows = order[places]
        unknown = np.asarray(ids)[self.ids[rows] != ids]
        if unknown.size:
            raise InputError(
                f"image {unknown.flat[0]} is not among the {len(self):,} latents: they belong to"
                " another run; `dvc repro` makes them fit"
            )
        return rows

    def usage(self) -> dict[str, float]:
        """How many codes there are and occur, and how many equally frequent ones say as much."""
        shares = torch.bincount(self.codes.flatten(), minlength=len(self.codebook)).double()
        shares /= shares.sum()
        return {
            "codes": len(self.codebook),
            "codes_used": int((shares > 0).sum()),
            "perplexity": round(torch.special.entr(shares).sum().exp().item(), 1),
        }

    def to(self, device: torch.device) -> "Latents":
        """The same with all tensors on `device`."""
        names = ("codes", "codebook", "mean", "std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def number(groups: np.ndarray) -> np.ndarray:
    """A number for each of some groups (n), equal for equal ones, as int64 (n).

    None is no group: each gets a number of its own.
    """
    known: dict[str, int] = {}
    own = range(len(groups), 2 * len(groups))
    of = zip(groups, own, strict=True)
    return np.array([a if g is None else known.setdefault(g, len(known)) for g, a in of], np.int64)


def read_neighbours(path: Path, train: Latents) -> tuple[np.ndarray, Tensor]:
    """A neighbour table: ids int64 (n), and the neighbours' rows in `train`, int64 (n, k)."""
    table = files.read_table(path)
    neighbours = files.lists_array(table["neighbours"])
    rows = train.rows(neighbours.reshape(-1)).reshape(neighbours.shape)
    return table["id"].to_numpy(), torch.from_numpy(rows)


def write(folder: Path, split: str, latents: Latents) -> None:
    """Write `<split>.parquet` and the `codebook.safetensors` that all splits share."""
    assert len(latents.codebook) <= 2**16  # config sees to it
    columns = {
        "id": pa.array(latents.ids),
        "original": pa.array(latents.originals),
        "group": pa.array(latents.groups, pa.string()),
        "codes": files.bytes_column(latents.codes.numpy().astype(np.uint16)),
    }
    about = {"side": str(latents.codes.shape[-1]), "codebook": _digest(latents.codebook)}
    files.write_table(folder / f"{split}.parquet", pa.table(columns).replace_schema_metadata(about))
    tensors = {name: getattr(latents, name) for name in ("codebook", "mean", "std")}
    files.write_tensors(folder / "codebook.safetensors", tensors, {})


def read(folder: Path, split: str) -> Latents:
    """Read what `write` wrote.

    Raises:
        InputError: a file is missing or broken, or the codes are rows of another codebook.
    """
    path = folder / f"{split}.parquet"
    table = files.read_table(path)
    tensors, _ = files.read_tensors(folder / "codebook.safetensors")
    about = table.schema.metadata
    if about[b"codebook"].decode() != _digest(tensors["codebook"]):
        raise InputError(
            f"{path}: its codes belong to another codebook than {folder}/codebook.safetensors;"
            " run `dvc repro encode_latents`"
        )
    side = int(about[b"side"])
    codes = files.bytes_array(table["codes"], np.uint16, (side, side))
    return Latents(
        ids=table["id"].to_numpy(),
        originals=table["original"].to_numpy(),
        groups=table["group"].to_numpy(),
        codes=torch.from_numpy(codes.astype(np.int32)),
        **tensors,
    )


def _digest(codebook: Tensor) -> str:
    return hashlib.sha256(codebook.numpy().tobytes()).hexdigest()
