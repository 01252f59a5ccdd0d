"""Every image of the split through a network once, a file at a time, by any number of workers."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rissole.core import fingerprint, processes, threads
from rissole.dataset import images
from rissole.harness.progress import progress

import numpy as np
import torch
from torch import Tensor

BATCH = 64  # images; twice as fast on a CPU as 256


@dataclass(frozen=True)
class Rows:
    """The images of a file, those that are mirrored after the others.

    Attributes:
        ids: int64 (n,), unlike each other.
        originals: int64 (n,), the id itself, or for a mirrored image that of the one it mirrors.
        groups: n strings or None.
    """

    ids: np.ndarray
    originals: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Encoding:
    """What is made of each file of the split.

    Attributes:
        stage: its name, for the notes on what is made already.
        folder: where a file of the same name goes.
        look: the network, from pictures float (b, 3, h, w) in -1..1 to a tensor (b, ...).
        write: takes the path, the rows and what the network gave for them.
        mirrors: whether train images are looked at mirrored, too.
        made_of: digest of everything that decides what is made but the file itself.
        device: of the network.
    """

    stage: str
    folder: Path
    look: Callable[[Tensor], Tensor]
    write: Callable[[Path, Rows, Tensor], None]
    mirrors: bool
    made_of: str
    device: torch.device

    def run(self, split: Path, part: str | None) -> None:
        """Make this process's files, or those of one `part` of workers such as `3/16`.

        A file that is there already and would come out the same is not made again.
        """
        shards = [shard for name in images.SPLITS for shard in images.shards(split, name)]
        mine = processes.share(shards) if part is None else processes.part(shards, part)
        with processes.alone():
            made = [shard for shard in mine if self._make(shard)]
        print(f"{self.stage}: {len(made)} of {len(mine)} files encoded -> {self.folder}")
        if part is None:
            processes.wait()
            if processes.first():
                known = {self.folder / shard.name for shard in shards}
                for path in {*self.folder.glob("*.parquet")} - known:
                    path.unlink()

    @torch.inference_mode()
    def _make(self, shard: Path) -> bool:
        mirrors = self.mirrors and shard.stem.startswith("train")
        path = self.folder / shard.name
        made_of = fingerprint.of(shard, mirrors=mirrors, made_of=self.made_of)
        if fingerprint.is_noted(self.stage, path, made_of):
            return False
        pictures = images.read_shard(shard)
        batches = [
            (slice(start, start + BATCH), slice(None, None, step))
            for step in ((1, -1) if mirrors else (1,))
            for start in range(0, len(pictures.ids), BATCH)
        ]
        seen, name = [], f"{self.stage} {shard.stem}"

        def look(place: tuple[slice, slice]) -> Tensor:
            rows, columns = place
            x = images.to_float(pictures.images[rows, :, columns].copy(), self.device)
            return self.look(x).cpu()

        with progress(name, " images", len(batches), BATCH) as advance:
            for found in threads.in_parallel(look, batches):
                seen.append(found)
                advance()
        ids, originals, groups = pictures.ids, pictures.ids, np.array(pictures.groups, object)
        if mirrors:
            ids = np.concatenate([ids, mirror_ids(ids)])
            originals, groups = np.tile(originals, 2), np.tile(groups, 2)
        self.write(path, Rows(ids, originals, groups), torch.cat(seen))
        fingerprint.note(self.stage, path, made_of)
        return True


def mirror_ids(ids: np.ndarray) -> np.ndarray:
    """An id for each image's mirror, made of the image's own, as a symmetric picture needs two."""
    digests = (hashlib.sha256(b"mirror of" + number.tobytes()).digest()[:8] for number in ids)
    return np.frombuffer(b"".join(digests), "<i8")
