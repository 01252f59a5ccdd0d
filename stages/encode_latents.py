"""Encode every image once: its codes, and the codebook that makes latents of them.

Reads data/split and data/vqgan; writes data/latents: for each file of the split one of codes,
`codebook.safetensors` with the codebook and the train latents' mean and standard deviation per
channel, and `manifest.json`, which makes the files one set. Where the preset wants mirrors, those
of the train images of a file follow them as rows of their own.

Several processes encode every so-manieth file. So do workers that know nothing of each other:
`python stages/encode_latents.py --part 3/16` encodes the third sixteenth and leaves the manifest to
a last call without it. A file that is there already and would come out the same is not made again.

    dvc repro encode_latents
    python stages/encode_latents.py
    torchrun --nproc-per-node 2 stages/encode_latents.py
    python stages/encode_latents.py --part 3/16
"""

from pathlib import Path

from rissole.core import config, files, fingerprint, numerics, processes
from rissole.dataset import images
from rissole.dataset.encoding import Encoding, Rows
from rissole.first_stage import vqgan
from rissole.harness.run import run
from rissole.latent import latents
from rissole.latent.settings import LatentsSettings

from torch import Tensor

SPLIT, LATENTS = Path("data/split"), Path("data/latents")
MODEL = Path("data/vqgan/vqgan.safetensors")


def main(part: str | None = None):
    """Encode all images.

    Args:
        part: which part of the work, such as 3/16; all of it where none is given.
    """
    settings = config.read()
    device = numerics.set_up(settings.threads)
    model = vqgan.load(MODEL).to(device)
    Encoding(
        stage="encode_latents",
        folder=LATENTS,
        look=lambda x: model.encode(x).int(),
        write=write,
        mirrors=settings.section(LatentsSettings).mirrors,
        made_of=fingerprint.of(MODEL, Path(__file__), machine=numerics.machine(device)),
        device=device,
    ).run(SPLIT, part)
    if part is not None:
        return

    if processes.first():
        names = {
            split: [path.stem for path in images.shards(SPLIT, split)] for split in images.SPLITS
        }
        latents.merge(LATENTS, names, model.codebook().cpu(), files.digest(MODEL))
    processes.wait()
    counts = {split: latents.count(LATENTS, split) for split in images.SPLITS}
    size = sum(path.stat().st_size for path in LATENTS.iterdir())
    print(
        f"encode_latents: {counts['train']:,} train and {counts['val']:,} val latents"
        f" -> {LATENTS}/manifest.json ({size / 1e6:.1f} MB)"
    )


def write(path: Path, rows: Rows, codes: Tensor) -> None:
    """Write the codes of a file."""
    latents.write_part(path, rows.ids, rows.originals, rows.groups, codes)


if __name__ == "__main__":
    run(main, shared=True)
