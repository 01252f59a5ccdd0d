"""Show every image to an encoder once, for retrieval by embedding and for RDM (Blattmann 2022).

Reads data/split; writes data/embeddings: for each file of the split one of vectors of length 1, the
mirrors of train images among them where the preset wants mirrors. The encoder is not a judge.

Several processes, and workers that know nothing of each other (`--part 3/16`), share the files as
in encode_latents.

    dvc repro embed_images
    python stages/embed_images.py
    torchrun --nproc-per-node 2 stages/embed_images.py
    python stages/embed_images.py --part 3/16
"""

from pathlib import Path

from rissole.core import config, fingerprint, numerics
from rissole.dataset.encoding import Encoding, Rows
from rissole.harness.run import run
from rissole.latent import embeddings
from rissole.latent.settings import LatentsSettings
from rissole.pretrained import encoder
from rissole.pretrained.settings import EncoderSettings

from torch import Tensor

SPLIT, EMBEDDINGS = Path("data/split"), Path("data/embeddings")


def main(part: str | None = None):
    """Embed all images.

    Args:
        part: which part of the work, such as 3/16; all of it where none is given.
    """
    settings = config.read()
    device = numerics.set_up(settings.threads)
    look = encoder.open(settings.section(EncoderSettings), device)

    def write(path: Path, rows: Rows, vectors: Tensor) -> None:
        embeddings.write(path, rows.ids, vectors.numpy(), encoder=look.key)

    Encoding(
        stage="embed_images",
        folder=EMBEDDINGS,
        look=look,
        write=write,
        mirrors=settings.section(LatentsSettings).mirrors,
        made_of=fingerprint.of(Path(__file__), encoder=look.key, machine=numerics.machine(device)),
        device=device,
    ).run(SPLIT, part)


if __name__ == "__main__":
    run(main, shared=True)
