"""The first stage's view of the images: code indices, and the codebook that makes them latents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rissole.core import files, fingerprint, memory
from rissole.harness.errors import InputError

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """The images of one split as codes; a latent is `codebook[codes]`, of a fraction of the size.

    Attributes:
        ids: int64 (n,), unlike each other.
        originals: int64 (n,), the id itself, or for a mirrored row that of the image it mirrors.
        groups: object (n,), a string or None.
        codes: int32 (n, h, w), rows of the codebook.
        codebook: float32 (K, c).
        mean: float32 (c,), of the train latents' channels.
        std: float32 (c,), likewise.
        identity: digest of the manifest, by which all that is made of them knows them.
        first_stage: digest of the VQ-GAN's file.
        embeddings: float32 (n, d), where a denoiser is told those of its neighbours.
    """

    ids: np.ndarray
    originals: np.ndarray
    groups: np.ndarray
    codes: Tensor
    codebook: Tensor
    mean: Tensor
    std: Tensor
    identity: str = ""
    first_stage: str = ""
    embeddings: Tensor | None = None

    def __len__(self) -> int:
        """The number of images, mirrored rows among them."""
        return len(self.ids)

    def some(self, rows: np.ndarray) -> "Latents":
        """Those of int64 `rows` only, without embeddings."""
        names = ("ids", "originals", "groups", "codes")
        return replace(self, embeddings=None, **{name: getattr(self, name)[rows] for name in names})

    def table(self, normalise: bool) -> Tensor:
        """The codebook (K, c), with zero mean and unit variance per channel if asked."""
        return (self.codebook - self.mean) / self.std if normalise else self.codebook

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels and sides of a latent."""
        return self.codebook.shape[1], *self.codes.shape[1:]

    def decoder(self, normalise: bool) -> Callable[[Tensor], Tensor]:
        """What turns codes (..., h, w) into latents (..., c, h, w), through `table`."""
        table = self.table(normalise)
        return lambda codes: F.embedding(codes.int(), table).movedim(-1, -3)

    def limit(self, normalise: bool) -> float:
        """The largest absolute value that a latent can take."""
        return self.table(normalise).abs().max().item()

    def with_grey(self) -> "Latents":
        """With one more row: the code nearest to the mean everywhere, and the mean embedding."""
        grey = self.table(normalise=True).norm(dim=1).argmin().expand(1, *self.codes.shape[1:])
        mean = self.embeddings
        if mean is not None:
            mean = torch.cat([mean, mean.mean(0, keepdim=True)])
        return replace(self, codes=torch.cat([self.codes, grey.to(self.codes)]), embeddings=mean)

    def z(self, rows: Tensor) -> Tensor:
        """The raw latents of int64 `rows` (...) as float32 (..., c, h, w)."""
        return F.embedding(take(self.codes, rows), self.codebook).movedim(-1, -3)

    def look_up(self, table: Tensor) -> Tensor:
        """All latents, float32 (n, c, h, w), through a `table` of codes."""
        return F.embedding(self.codes.to(table.device), table).movedim(-1, -3).contiguous()

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
        """The same with all tensors on `device`, the codes only where they fit (see `take`)."""
        codes = self.codes
        if memory.fits(codes.numel() * codes.itemsize, device):
            codes = codes.to(device)
        rest = {name: getattr(self, name).to(device) for name in ("codebook", "mean", "std")}
        if self.embeddings is not None:
            rest["embeddings"] = self.embeddings.to(device)
        return replace(self, codes=codes, **rest)


def number(groups: np.ndarray) -> np.ndarray:
    """A number for each of some groups (n), equal for equal ones, as int64 (n).

    None is no group: each gets a number of its own.
    """
    known: dict[str, int] = {}
    own = range(len(groups), 2 * len(groups))
    of = zip(groups, own, strict=True)
    return np.array([a if g is None else known.setdefault(g, len(known)) for g, a in of], np.int64)


def read_neighbours(path: Path, train: Latents) -> tuple[np.ndarray, Tensor]:
    """A neighbour table: ids int64 (n), and the neighbours' rows in `train`, int64 (n, k).

    Raises InputError where it was looked up among other latents.
    """
    table = files.read_table(path)
    check_table(path, table, train)
    neighbours = files.lists_array(table["neighbours"])
    rows = train.rows(neighbours.reshape(-1)).reshape(neighbours.shape)
    return table["id"].to_numpy(), torch.from_numpy(rows)


def check_table(path: Path, table: pa.Table, latents: Latents) -> None:
    """Raise InputError unless a table says that it was made of these latents."""
    said = (table.schema.metadata or {}).get(b"latents", b"").decode()
    fingerprint.check(
        path, said, latents.identity, "made of other latents than those of data/latents"
    )


def write_part(
    path: Path,
    ids: np.ndarray,
    originals: np.ndarray,
    groups: np.ndarray,
    codes: Tensor,
) -> None:
    """Write some images of a split, each argument as in `Latents`; `merge` makes them whole."""
    columns = {
        "id": pa.array(ids),
        "original": pa.array(originals),
        "group": pa.array(groups, pa.string()),
        "codes": files.bytes_column(codes.numpy().astype(np.uint16)),
    }
    about = {"side": str(codes.shape[-1])}
    files.write_table(path, pa.table(columns).replace_schema_metadata(about))


def merge(
    folder: Path, splits: dict[str, list[str]], codebook: Tensor, first_stage: str = ""
) -> None:
    """Make the parts of all splits one set, whoever wrote them: by a manifest of their digests.

    Writes `manifest.json` and `codebook.safetensors`, with the mean and the standard deviation of
    the train latents per channel.

    Args:
        folder: of the parts.
        splits: the names of the parts of each split, in order, without suffix.
        codebook: float32 (K, c).
        first_stage: digest of the VQ-GAN's file.

    Raises:
        InputError: a part is missing.
    """
    assert len(codebook) <= 2**16  # config sees to it
    counts = torch.zeros(len(codebook), dtype=torch.int64)
    manifest = {"first_stage": first_stage}
    for split, names in splits.items():
        manifest[split] = {}
        for name in names:
            path = folder / f"{name}.parquet"
            table = files.read_table(path, ["codes"])
            manifest[split][name] = {"rows": len(table), "sha256": files.digest(path)}
            if split == "train":
                counts += torch.bincount(_codes(table).flatten(), minlength=len(codebook))
    moments = mean_and_std(counts, codebook)
    tensors = {"codebook": codebook} | dict(zip(("mean", "std"), moments, strict=True))
    files.write_tensors(folder / "codebook.safetensors", tensors, {})
    manifest["codebook"] = files.digest(folder / "codebook.safetensors")
    files.write_record(folder / "manifest.json", manifest)


def mean_and_std(counts: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, float32 (c,), where code i occurs `counts[i]` times."""
    shares = counts.double() / counts.sum()
    mean = shares @ codebook.double()
    std = (shares @ (codebook.double() - mean).square()).sqrt()
    std[std == 0] = 1  # a channel that never changes stays as it is
    return mean.float(), std.float()


def read_parts(folder: Path, split: str) -> Iterator[Latents]:
    """The images of a split, one part at a time.

    Raises:
        InputError: a file is missing, broken, or not the one that was merged.
    """
    manifest = files.read_record(folder / "manifest.json")
    path, other = folder / "codebook.safetensors", "not the file that manifest.json names"
    tensors, _ = files.read_tensors(path)
    fingerprint.check(path, files.digest(path), manifest["codebook"], other)
    for name, of in manifest[split].items():
        path = folder / f"{name}.parquet"
        table = files.read_table(path)
        fingerprint.check(path, files.digest(path), of["sha256"], other)
        yield Latents(
            ids=table["id"].to_numpy(),
            originals=table["original"].to_numpy(),
            groups=table["group"].to_numpy(),
            codes=_codes(table),
            identity=files.digest(folder / "manifest.json"),
            first_stage=manifest["first_stage"],
            **tensors,
        )


def count(folder: Path, split: str) -> int:
    """How many images a split has. Raises InputError as `read_parts`."""
    parts = files.read_record(folder / "manifest.json")[split]
    return sum(of["rows"] for of in parts.values())


def read(folder: Path, split: str) -> Latents:
    """All images of a split, the codes in memory where they fit (`memory.array`).

    Raises:
        InputError: as `read_parts`.
    """
    codes, columns, start = None, [], 0
    for part in read_parts(folder, split):
        if codes is None:
            shape = (count(folder, split), *part.codes.shape[1:])
            codes = memory.array(shape, np.int32, f"{split} codes")
        codes[start : start + len(part)] = part.codes
        start += len(part)
        columns.append((part.ids, part.originals, part.groups))
    ids, originals, groups = map(np.concatenate, zip(*columns, strict=True))
    return replace(part, ids=ids, originals=originals, groups=groups, codes=torch.from_numpy(codes))


def take(codes: Tensor, rows: Tensor) -> Tensor:
    """`codes[rows]` on the device of the rows, wherever the codes are."""
    return codes[rows.to(codes.device)].to(rows.device)


def _codes(table: pa.Table) -> Tensor:
    side = int(table.schema.metadata[b"side"])
    codes = files.bytes_array(table["codes"], np.uint16, (side, side))
    return torch.from_numpy(codes.astype(np.int32))
