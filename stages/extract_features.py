"""Features of the true images, taken once for all rows.

Reads the split, the latents and the VQ-GAN. Writes what each judge sees in val images, in train
images and in the VQ-GAN's reconstructions of those val images to data/features; the distances that
belong to no row, by which every row is read, to metrics/reference.json; and how well the VQ-GAN
reconstructs val images to metrics/vqgan.json.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rissole import config, files, images, judges, latents, runtime, scores, vqgan

SPLIT, LATENTS, VQGAN = Path("data/split"), Path("data/latents"), Path("data/vqgan")
FEATURES, METRICS = Path("data/features"), Path("metrics")
MOST = 10_000  # val images: the number of the released evaluation


def main() -> None:
    """Extract the features and compare the true images among themselves."""
    settings = config.read()
    device = runtime.set_up(settings.threads)
    look = judges.open(settings.judge, device)
    drawn = settings.sample.images

    val, val_images = take("val", MOST)
    train, train_images = take("train", max(drawn, len(val)))
    perfect = train[runtime.evenly(len(train), drawn)]
    pictures = {
        "val": (val, val_images),
        "train": (train, train_images),
        "reconstructed": (val, reconstruct("val", val, settings.judge.batch, device)),
        "perfect": (perfect, reconstruct("train", perfect, settings.judge.batch, device)),
    }
    seen = {name: {of: see(x) for of, see in look.items()} for name, (_, x) in pictures.items()}
    for name in scores.REFERENCES:
        columns = {"id": pa.array(pictures[name][0])}
        columns |= {judge: files.lists_column(x) for judge, x in seen[name].items()}
        files.write_table(FEATURES / f"{name}.parquet", pa.table(columns))
    reference = scores.reference(seen)
    files.write_json(METRICS / "reference.json", reference)
    files.write_json(METRICS / "vqgan.json", first_stage(val_images, pictures, reference))
    print(
        f"extract_features: {len(val):,} val images, their reconstructions and {len(train):,} train"
        f" images, seen by {' and '.join(look)} -> {FEATURES}, {METRICS}/reference.json"
    )


def first_stage(val_images: np.ndarray, pictures: dict, reference: dict) -> dict[str, float]:
    """What bounds every score after it: how the VQ-GAN reconstructs val images."""
    model = vqgan.load(VQGAN / "vqgan.safetensors")
    distances = {key: of["reconstructed"] for key, of in reference.items() if key in scores.FRECHET}
    return {
        "psnr": scores.psnr(val_images, pictures["reconstructed"][1]),
        **{f"{key}_reconstructed": distance for key, distance in distances.items()},
        **latents.read(LATENTS, "val").usage(),
        "parameters": vqgan.count_parameters(model)["all"],
    }


def take(split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and pictures of at most `most` images, evenly spread over a split."""
    n = len(images.read_split(SPLIT, split, pictures=False).ids)
    rows, start, ids, pictures = runtime.evenly(n, most), 0, [], []
    for part in images.read_shards(SPLIT, split):
        here = rows[(rows >= start) & (rows < start + len(part.ids))] - start
        ids.append(part.ids[here])
        pictures.append(part.images[here])
        start += len(part.ids)
    return np.concatenate(ids), np.concatenate(pictures)


@torch.inference_mode()
def reconstruct(split: str, ids: np.ndarray, batch: int, device: torch.device) -> np.ndarray:
    """The images that the VQ-GAN makes of the codes of images, uint8 (n, h, w, 3)."""
    model = vqgan.load(VQGAN / "vqgan.safetensors").to(device)
    encoded = latents.read(LATENTS, split).to(device)
    rows = torch.from_numpy(encoded.rows(ids)).to(device)
    return np.concatenate([images.to_uint8(model.decode(encoded.z(r))) for r in rows.split(batch)])


if __name__ == "__main__":
    runtime.run(main)
