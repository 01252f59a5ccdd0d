"""The parts of an exported model, each read from its folder as diffusers asks for it.

model_index.json names these classes. Each reads with the project's own readers, after a check of
the whole folder, so that a changed file is refused whichever part is read first.
"""

import sys
from pathlib import Path

from rissole.core import files
from rissole.denoiser import denoiser
from rissole.drawing.settings import Sample
from rissole.export.database import Database
from rissole.first_stage import vqgan
from rissole.harness.errors import InputError
from rissole.latent import embeddings, latents
from rissole.latent.latents import Latents
from rissole.latent.pixels import Pixels
from rissole.retrieval.settings import Retrieval

from diffusers import ModelMixin, SchedulerMixin

CHECKSUMS = "checksums.json"


class FirstStagePart(ModelMixin):
    """Folder first_stage: the VQ-GAN that turns images into codes, and back; frozen."""

    def __init__(self, network: vqgan.VQGAN):
        super().__init__()
        self.network = network

    @classmethod
    def from_pretrained(cls, folder: str, **settings) -> "FirstStagePart":
        """Read it, if it is the one that encoded the database."""
        top = checked(folder)
        return cls(vqgan.load(top / "first_stage/vqgan.safetensors", _some(top).first_stage))


class DenoiserPart(ModelMixin):
    """Folder denoiser: the network with its stem, and the settings that rebuild it."""

    def __init__(self, network: denoiser.Network):
        super().__init__()
        self.network = network

    @classmethod
    def from_pretrained(cls, folder: str, **settings) -> "DenoiserPart":
        """Read it, if it was trained on the database."""
        top = checked(folder)
        return cls(denoiser.load(top / "denoiser/denoiser.safetensors", _some(top))).eval()


class SchedulerPart(SchedulerMixin):
    """Folder scheduler: rule, steps and batch; schedule and target are the denoiser's."""

    @classmethod
    def from_pretrained(cls, folder: str, **settings) -> Sample:
        """Section `sample` of the row."""
        content = files.read_json(checked(folder) / "scheduler/scheduler_config.json")
        return Sample(**{name: content[name] for name in Sample.model_fields})


class DatabasePart(ModelMixin):
    """Folder database: codes and codebook of the train images, and the row's query table."""

    @classmethod
    def from_pretrained(cls, folder: str, **settings) -> Database:
        """The database that the row retrieves from."""
        folder = checked(folder) / "database"
        known = latents.read(folder, "train")
        if (folder / "embeddings.parquet").exists():
            known = embeddings.told(known, folder)
        about, told = files.read_json(folder / "retrieval.json"), _told(folder, known)
        if about["table"] is None:
            return Database(known, told, None, about["blocks"])
        table = Retrieval.model_validate(about["table"])
        ids, neighbours = latents.read_neighbours(folder / "queries.parquet", known)
        return Database(known, told, table, about["blocks"], known.rows(ids), neighbours)


def checked(folder: str) -> Path:
    """The folder of a model, from that of a part, once it has been seen to be as it was exported.

    Raises:
        InputError: a file is missing or changed, or this process has loaded other code.
    """
    top = Path(folder).parent
    try:
        digests = files.read_record(top / CHECKSUMS)
    except InputError:
        raise InputError(
            f"{top / CHECKSUMS}: missing, or changed since it was exported; fetch the model anew"
        ) from None
    for name, digest in digests.items():
        if not (top / name).is_file() or files.digest(top / name) != digest:
            raise InputError(
                f"{top / name}: missing, or changed since it was exported; fetch the model anew"
            )
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        here = f"{name.replace('.', '/')}{'/__init__' if path.stem == '__init__' else ''}.py"
        if here in digests and files.digest(path) != digests[here]:
            raise InputError(
                f"{top}: its {here} is another than {path}, which this process has loaded; load"
                " each model in a process of its own"
            )
    return top


def _some(top: Path) -> Latents:
    """A part of the database's latents, which knows what all of them were made by."""
    return next(latents.read_parts(top / "database", "train"))


def _told(folder: Path, known: Latents) -> Latents | Pixels:
    path = folder / "pictures.safetensors"
    if not path.exists():
        return known
    tensors, _ = files.read_tensors(path)
    return Pixels(tensors["levels"], tensors["mean"], tensors["std"], known.embeddings)
