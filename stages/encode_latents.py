"""Encode every image once: its codes, and the codebook that makes latents of them.

Reads data/split and data/vqgan; writes data/latents: for each file of the split one of codes,
`codebook.safetensors` with the codebook and the train latents' mean and standard deviation per
channel, and `manifest.json`, which makes the files one set. Where the preset wants mirrors, those
of the train images of a file follow them as rows of their own.

Several processes encode every so-manieth file. So do workers that know nothing of each other:
`python stages/encode_latents.py --part 3/16` encodes the third sixteenth and leaves the manifest to
a last call without it. A file that is there already and would come out the same is not made again.
"""

import hashlib
from pathlib import Path

from rissole.dataset import images
from rissole.first_stage import vqgan
from rissole.ground import config, files, identity, processes, runtime
from rissole.latent import latents

import numpy as np
import torch

SPLIT, LATENTS = Path("data/split"), Path("data/latents")
MODEL = Path("data/vqgan/vqgan.safetensors")
BATCH = 64  # images; twice as fast on a CPU as 256


def main(part: str | None = None):
    settings = config.read()
    device = runtime.set_up(settings.threads)
    model = vqgan.load(MODEL).to(device)
    splits = {split: images.shards(SPLIT, split) for split in images.SPLITS}
    shards = [shard for of in splits.values() for shard in of]
    mine = processes.share(shards) if part is None else processes.part(shards, part)
    with processes.alone():
        made = [shard for shard in mine if encode(model, shard, settings.latents.mirrors, device)]
    print(f"encode_latents: {len(made)} of {len(mine)} files encoded -> {LATENTS}")
    if part is not None:
        return

    processes.wait()
    names = {split: [shard.stem for shard in of] for split, of in splits.items()}
    if processes.first():
        for path in {*LATENTS.glob("*.parquet")} - {LATENTS / shard.name for shard in shards}:
            path.unlink()
        latents.merge(LATENTS, names, model.codebook().cpu(), files.digest(MODEL))
    processes.wait()
    counts = {split: latents.count(LATENTS, split) for split in images.SPLITS}
    size = sum(path.stat().st_size for path in LATENTS.iterdir())
    print(
        f"encode_latents: {counts['train']:,} train and {counts['val']:,} val latents"
        f" -> {LATENTS}/manifest.json ({size / 1e6:.1f} MB)"
    )


@torch.inference_mode()
def encode(model: vqgan.VQGAN, shard: Path, mirrors: bool, device: torch.device) -> bool:
    """Encode a file of the split, unless that was done; whether it had to be."""
    mirrors = mirrors and shard.stem.startswith("train")
    path = LATENTS / shard.name
    made_of = identity.of(
        shard,
        MODEL,
        Path(__file__),
        mirrors=mirrors,
        machine=runtime.machine(device),
    )
    if identity.is_noted("encode_latents", path, made_of):
        return False
    pictures = images.read_shard(shard)
    batches = [
        (slice(start, start + BATCH), slice(None, None, step))
        for step in ((1, -1) if mirrors else (1,))
        for start in range(0, len(pictures.ids), BATCH)
    ]
    codes = []
    for rows, columns in runtime.progress(batches, f"encode {shard.stem}", " images", scale=BATCH):
        x = images.to_float(pictures.images[rows, :, columns].copy())
        codes.append(model.encode(x.to(device)).int().cpu())
    ids, originals, groups = pictures.ids, pictures.ids, np.array(pictures.groups, object)
    if mirrors:
        ids = np.concatenate([ids, mirror_ids(ids)])
        originals, groups = np.tile(originals, 2), np.tile(groups, 2)
    latents.write_part(path, ids, originals, groups, torch.cat(codes))
    identity.note("encode_latents", path, made_of)
    return True


def mirror_ids(ids: np.ndarray) -> np.ndarray:
    """An id for each image's mirror, made of the image's own, as a symmetric picture needs two."""
    digests = (hashlib.sha256(b"mirror of" + number.tobytes()).digest()[:8] for number in ids)
    return np.frombuffer(b"".join(digests), "<i8")


if __name__ == "__main__":
    runtime.run(main, shared=True)
