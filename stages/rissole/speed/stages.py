"""The stages, as who foresees a run sees them: how often each is called, and what it grows with."""

from collections.abc import Callable
from dataclasses import dataclass

from rissole.core.config import Settings
from rissole.dataset.settings import Data
from rissole.denoiser.settings import LDM
from rissole.denoiser.training import VALIDATED
from rissole.first_stage.settings import VQGANSettings
from rissole.latent.settings import LatentsSettings

JUDGED = 10_000  # val images at most, as `build_reference` has it
TRAINING = 3  # times the FLOP of a forward pass


@dataclass(frozen=True)
class Size:
    """How much a run works through.

    Attributes:
        images: read, of both splits.
        first_stage, denoiser: steps of the trainings.
        validations: of the denoiser.
        drawn: images of a row.
        steps: of the sampler.
    """

    images: int
    first_stage: int
    denoiser: int
    validations: int
    drawn: int
    steps: int


def _nothing(settings: Settings, size: Size) -> float:
    return 0


def _images(settings: Settings, size: Size) -> float:
    return size.images


def _drawn(settings: Settings, size: Size) -> float:
    return size.drawn


def _first_stage(settings: Settings, size: Size) -> float:
    return size.first_stage


def _denoiser(settings: Settings, size: Size) -> float:
    validated = min(settings.section(Data).validation * size.images, VALIDATED)
    return size.denoiser + size.validations * validated / settings.section(LDM).batch / TRAINING


def _pairs(settings: Settings, size: Size) -> float:
    return size.images * size.images * (1 - settings.section(Data).validation)


def _drawing(settings: Settings, size: Size) -> float:
    return size.drawn * size.steps


def _judged(settings: Settings, size: Size) -> float:
    judged = min(settings.section(Data).validation * size.images, JUDGED)
    return 2 * judged + max(size.drawn, judged) + size.drawn


def _pixels(settings: Settings) -> int:
    return 3 * settings.section(Data).size ** 2


def _codes(settings: Settings) -> int:
    side = settings.section(Data).size // 2 ** len(settings.section(VQGANSettings).widths)
    return 4 * side**2 * (1 + settings.section(LatentsSettings).mirrors)


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        work: what the seconds of a call grow with, in units of its own.
        each: the section of params.yaml for each of whose entries it is called; else it is once.
        held: the bytes of each image that one which works in batches holds beside a batch; the
            memory of others grows with the images in a way that only trying tells.
        shared: whether several devices share it.
        scores: whether the scores of a row wait for it.
    """

    work: Callable[[Settings, Size], float]
    each: str = ""
    held: Callable[[Settings], int] | None = None
    shared: bool = False
    scores: bool = True

    def calls(self, settings: Settings) -> int:
        """How often it is called."""
        return len(settings.names(self.each)) if self.each else 1


STAGES = {  # in running order
    "split_data": Stage(_images),
    "train_vqgan": Stage(_first_stage, held=_pixels, shared=True),
    "encode_latents": Stage(_images, shared=True),
    "embed_images": Stage(_images, shared=True),
    "build_index": Stage(_images),
    "retrieve_neighbours": Stage(_pairs, each="retrievals"),
    "train_ldm": Stage(_denoiser, each="variants", held=_codes, shared=True),
    "sample_images": Stage(_drawing, each="rows", held=_codes, shared=True),
    "build_reference": Stage(_judged),
    "score_controls": Stage(_drawn, scores=False),
    # What the search for copies grows with besides, the train images, is left out.
    "compute_fid": Stage(_drawn, each="rows"),
    "judge_retrieval": Stage(_images, scores=False),
    "make_tables": Stage(_nothing, scores=False),
    "make_report": Stage(_nothing, scores=False),
}
