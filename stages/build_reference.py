"""Everything about the true images that rows are read by, taken once for all rows.

Reads the split, the latents and the VQ-GAN. Writes to data/reference what each judge sees in val
images, in train images and in the VQ-GAN's reconstructions of those val images, these
reconstructions, and the detectors of collages; the distances that belong to no row to
metrics/reference.json; and how well the VQ-GAN reconstructs val images to metrics/vqgan.json.

    dvc repro build_reference
    python stages/build_reference.py
"""

from pathlib import Path

from rissole.auditing import coherence
from rissole.core import config, files, memory, numerics
from rissole.dataset import images
from rissole.drawing.settings import Sample
from rissole.first_stage import vqgan
from rissole.harness.run import run
from rissole.judging import features, judges, scores
from rissole.judging.settings import JudgeSettings
from rissole.latent import latents

import numpy as np
import pyarrow as pa
import torch

SPLIT, LATENTS, VQGAN = Path("data/split"), Path("data/latents"), Path("data/vqgan")
REFERENCE, METRICS = Path("data/reference"), Path("metrics")
MOST = 10_000  # val images: the number of the released evaluation


def main() -> None:
    """Extract the features and compare the true images among themselves."""
    settings = config.read().fitted(images.extent(SPLIT))
    device = numerics.set_up(settings.threads)
    look = judges.open(settings.section(JudgeSettings), device)
    drawn = settings.section(Sample).images

    encoded = {split: latents.read(LATENTS, split) for split in ("train", "val")}
    val, val_images = take("val", MOST)
    train, train_images = take("train", max(drawn, len(val)))
    perfect = train[numerics.evenly(len(train), drawn)]
    identified = encoded["train"].identity
    model = vqgan.load(VQGAN / "vqgan.safetensors", encoded["train"].first_stage).to(device)
    reconstructed, perfect_images = (
        reconstruct(model, encoded[split], ids, settings.section(JudgeSettings).batch, device)
        for split, ids in (("val", val), ("train", perfect))
    )
    apart = encoded["val"].apart_from(encoded["train"])[encoded["val"].rows(val)]

    def show(name: str, ids: np.ndarray, pictures: np.ndarray, **columns) -> dict:
        columns = {"id": pa.array(ids)} | columns
        path = REFERENCE / f"{name}.parquet"
        return features.write(path, pictures, look, identified, columns)

    seen = {
        "train": show("train", train, train_images),
        "val": show("val", val, val_images, apart=pa.array(apart)),
        "reconstructed": show("reconstructed", val, reconstructed),
    }
    numbers = {}
    for judge, see in look.items():
        true = scores.Features(**{name: of[judge] for name, of in seen.items()}, apart=apart)
        numbers |= scores.reference(judge, true, see(perfect_images))
    pictures = pa.table(
        {"id": pa.array(val), "image": files.bytes_column(reconstructed)},
        metadata={"size": str(reconstructed.shape[1]), "latents": identified},
    )
    files.write_table(REFERENCE / "reconstructions.parquet", pictures)

    table = encoded["train"].table(normalise=True)
    z = {split: of.look_up(table) for split, of in encoded.items()}
    halves = z["train"][::2], z["train"][1::2]
    fitting = memory.fits(2 * halves[0].nbytes, device)  # the search of their kin copies them twice
    where = device if fitting else torch.device("cpu")
    trained = [
        coherence.train_detector(half.to(where), settings.blocks, settings.seed + number)
        for number, half in enumerate(halves)
    ]
    coherence.save(REFERENCE / "collages.safetensors", trained, identified)
    numbers["coherence"] = coherence.reference(
        trained, z["val"].to(where), settings.blocks, settings.seed
    )
    numbers["images"] = {"drawn": drawn, "train": len(train), "val": len(val)}
    numbers["images"]["val_apart"] = int(apart.sum())
    files.write_json(METRICS / "reference.json", numbers)
    files.write_json(
        METRICS / "vqgan.json",
        {
            "psnr": scores.psnr(val_images, reconstructed),
            **{
                f"{key}_reconstructed": numbers[key]["reconstructed"]
                for key in scores.frechet_keys(numbers)
            },
            **encoded["val"].usage(),
            "parameters": vqgan.count_parameters(model)["all"],
        },
    )
    print(
        f"build_reference: {len(val):,} val images, their reconstructions and {len(train):,} train"
        f" images, seen by {' and '.join(look)} -> {REFERENCE}, {METRICS}/reference.json"
    )


def take(split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and pictures of at most `most` images, evenly spread over a split."""
    n = len(images.read_split(SPLIT, split, pictures=False).ids)
    rows, start, ids, pictures = numerics.evenly(n, most), 0, [], []
    for part in images.read_shards(SPLIT, split):
        here = rows[(rows >= start) & (rows < start + len(part.ids))] - start
        ids.append(part.ids[here])
        pictures.append(part.images[here])
        start += len(part.ids)
    return np.concatenate(ids), np.concatenate(pictures)


@torch.inference_mode()
def reconstruct(
    model: vqgan.VQGAN, encoded: latents.Latents, ids: np.ndarray, batch: int, device: torch.device
) -> np.ndarray:
    """The images that the VQ-GAN makes of the codes of images, uint8 (n, h, w, 3)."""
    encoded = encoded.to(device)
    rows = torch.from_numpy(encoded.rows(ids)).to(device)
    return np.concatenate([images.to_uint8(model.decode(encoded.z(r))) for r in rows.split(batch)])


if __name__ == "__main__":
    run(main)
