"""RissolePipeline: a row of the table as a diffusers pipeline that stands on its own.

A thin adapter: images are drawn by `rissole.drawing`, neighbours looked up by `rissole.retrieval`.
In an exported folder this file is rissole_pipeline.py, beside the modules that it imports.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from rissole.denoiser.conditioning import Conditioning
from rissole.drawing.drawing import Drawing
from rissole.drawing.settings import Sample
from rissole.export import database as databases
from rissole.export.database import Database
from rissole.export.leaks import LeakCheck, Leaks
from rissole.export.parts import DenoiserPart, FirstStagePart
from rissole.harness.errors import InputError
from rissole.pretrained import compat

import numpy as np
from PIL import Image

compat.arm()  # diffusers imports torchvision where there is one
from diffusers import DiffusionPipeline, ImagePipelineOutput  # noqa: E402

logger = logging.getLogger(__name__)


@dataclass
class RissoleOutput(ImagePipelineOutput):
    """Drawn images, and what they were drawn from.

    Attributes:
        images: n PIL images, or float32 (n, h, w, 3) in 0..1.
        queries: of each the id or the file of the database's image whose neighbours it was told;
            None where the query was given, or the model retrieves nothing.
        neighbours: of each the ids or files of those neighbours, best first; None where there are
            none.
        leaks: the leak check, where neighbours came from a folder (`retrieve_from`).
    """

    queries: list | None = None
    neighbours: list[list] | None = None
    leaks: Leaks | None = None


class RissolePipeline(DiffusionPipeline):
    """Draws images block by block, told the neighbours of a query image.

    Args:
        database: that neighbours are taken from, unless `retrieve_from` names a folder.
        first_stage: between images and latents.
        denoiser: of a block.
        scheduler: sampler, steps and batch.
        row: name of the row.
        seed: of the row.
        checkpoint: SHA-256 of the denoiser as it was trained.
    """

    def __init__(
        self,
        database: Database,
        first_stage: FirstStagePart,
        denoiser: DenoiserPart,
        scheduler: Sample,
        row: str = "",
        seed: int = 0,
        checkpoint: str = "",
    ):
        super().__init__()
        self.register_modules(
            database=database, first_stage=first_stage, denoiser=denoiser, scheduler=scheduler
        )
        self.register_to_config(row=row, seed=seed, checkpoint=checkpoint)
        self._theirs: Database | None = None
        self._leak_check: LeakCheck | None = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, **settings) -> "RissolePipeline":
        """Load a model.

        Args:
            folder: that `stages/export_model.py` wrote, wherever it is now.
            settings: of `DiffusionPipeline.from_pretrained`.

        Raises:
            InputError: there is no such folder, or a file of it is not as it was exported.
        """
        if not Path(folder).is_dir():
            raise InputError(
                f"{folder} is not a folder; fetch a model of a hub with"
                " `hf download NAME --local-dir DIR` and load DIR"
            )
        return super().from_pretrained(str(folder), **{"low_cpu_mem_usage": False} | settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the folder that the model was loaded from; a folder of `retrieve_from` stays away.

        Args:
            folder: to be filled.
        """
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(self.config["_name_or_path"], folder, ignore=ignore, dirs_exist_ok=True)

    def retrieve_from(self, folder: str | Path | None) -> dict[str, str]:
        """Take neighbours from a folder of images from now on, without training anything.

        Its images are encoded by the first stage. Drawn ones are told the neighbours of one of
        them, each in turn, in random order; an image is never its own neighbour, nor is an exact
        duplicate or mirror of it. What is drawn is checked for copies (`RissoleOutput.leaks`).

        Args:
            folder: with all that is below it; None for the database that the model came with.

        Returns:
            The files that were left out, each with the reason; they are logged, too.

        Raises:
            InputError: the model retrieves nothing, or looks up by what the folder does not carry;
                the folder is none, or does not hold k + 1 different images.
        """
        if not isinstance(folder, str | Path | None):
            raise InputError(f"a folder is named by its path, not by a {type(folder).__name__}")
        if folder is None:
            self._theirs = self._leak_check = None
            return {}
        self._check_retrieves()
        theirs = databases.of_folder(
            Path(folder), self.database, self.first_stage.network, self.config["seed"], self._files
        )
        for name, reason in theirs.left_out.items():
            logger.warning("%s: left out: %s", Path(folder) / name, reason)
        side = self.denoiser.network.row.blocks
        self._leak_check = LeakCheck(theirs, side if side > 1 else theirs.blocks)
        self._theirs = theirs
        return theirs.left_out

    def __call__(
        self,
        num_images: int | None = None,
        query: Image.Image | str | Path | list | None = None,
        seed: int | None = None,
        num_inference_steps: int | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> RissoleOutput | tuple:
        """Draw images.

        By default these are the images of data/samples/<row> from the first on, with the same
        queries in their order. On a CPU they are equal to them bit by bit as far as their last
        bits do not depend on what is computed beside them: for the same `batch_size`, with the
        same images in a batch (so many as to fill it, or all), with the same number of threads
        (`torch.set_num_threads`: the project draws each batch by one), version of torch and kind of
        processor. Image i is otherwise the same up to rounding, however many are drawn.

        Args:
            num_images: how many; one for each query if left out.
            query: an image or several, or paths, whose neighbours are told, instead of images of
                the database; where there are fewer than images, they serve again from the first.
            seed: of the noise; the row's own if left out.
            num_inference_steps: of the sampler; the row's own if left out.
            batch_size: images denoised together; the row's own if left out.
            output_type: `pil`, or `np` for float32 (n, h, w, 3) in 0..1.
            return_dict: whether to return an output with names, or a tuple of the images alone.

        Raises:
            InputError: the model retrieves nothing and cannot take a query, or a query cannot be
                read; or an argument is out of range.
        """
        asked = None if query is None else query if isinstance(query, list) else [query]
        if asked == []:
            raise InputError("query is an empty list; give at least one image")
        count = (1 if asked is None else len(asked)) if num_images is None else num_images
        count = _whole("num_images", count)
        if asked is not None and count < len(asked):
            raise InputError(
                f"num_images is {count}, and there are {len(asked)} queries; ask for one image of"
                " each at least, or give fewer"
            )
        sample = self._sample(count, num_inference_steps, batch_size)
        if output_type not in ("pil", "np"):
            raise InputError(f"output_type is {output_type!r}; take 'pil' or 'np'")
        seed = self.config["seed"] if seed is None else _whole("seed", seed, least=0)
        database = self._theirs or self.database
        queries, told = self._told(database, asked, count, seed)
        drawing = Drawing(
            sample=sample,
            seed=seed,
            checkpoint=self.config["checkpoint"],
            network=self.denoiser.network,
            told=database.told,
            conditioning=Conditioning(
                self.denoiser.network.row,
                database.told.to(self.device),
                self.denoiser.network.ldm.normalise,
            ),
            first_stage=self.first_stage.network,
            database=database.latents,
            queries=queries,
            neighbours=told,
        )
        pictures, codes = self._draw(drawing)
        shown = pictures.astype(np.float32) / 255
        if output_type == "pil":
            shown = [Image.fromarray(picture) for picture in pictures]
        if not return_dict:
            return (shown,)
        return RissoleOutput(
            images=shown,
            queries=None if queries is None else database.said(queries),
            neighbours=None if told is None else [database.said(rows) for rows in told.numpy()],
            leaks=self._leaks(codes, queries),
        )

    def _draw(self, drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
        batches = drawing.batches()
        calls = len(drawing.conditioning.grid.turns) * len(drawing.sampler.timesteps)
        with self.progress_bar(total=len(batches) * calls) as bar:
            drawn = [drawing.draw(batch, lambda z: bar.update()) for batch in batches]
        return tuple(np.concatenate(part) for part in zip(*drawn, strict=True))

    def _files(self, count: int):
        bar = self.progress_bar(total=count)
        bar.set_description("images read")
        return bar

    def _sample(self, count: int, steps: int | None, batch: int | None) -> Sample:
        ldm, own = self.denoiser.network.ldm, self.scheduler
        steps = own.steps if steps is None else _whole("num_inference_steps", steps)
        batch = own.batch if batch is None else _whole("batch_size", batch)
        if ldm.schedule != "lognormal" and ldm.timesteps % steps:
            raise InputError(
                f"num_inference_steps is {steps}: must divide the {ldm.timesteps} timesteps of"
                " training"
            )
        return self.scheduler.model_copy(update={"images": count, "steps": steps, "batch": batch})

    def _told(self, database: Database, asked: list | None, count: int, seed: int):
        """The rows of the queries (n), where they are the database's, and of neighbours (n, k)."""
        each = np.arange(count)
        if asked is not None:
            self._check_retrieves()
            of = databases.of_images(asked, self.database.latents, self.first_stage.network)
            return None, database.look_up(of, seed)[each % len(asked)]
        if database.neighbours is None:
            return None, None
        each %= len(database.queries)
        return database.queries[each], database.neighbours[each]

    def _check_retrieves(self) -> None:
        table = self.database.retrieval
        if table is None:
            raise InputError(
                f"row {self.config['row']} retrieves nothing: it takes neither a query nor a"
                " folder; export a row that has neighbours"
            )
        if table.query == "embedding" or self.denoiser.network.row.neighbours == "tokens":
            raise InputError(
                f"row {self.config['row']} looks neighbours up by an encoder that the model's"
                " folder does not carry: it draws from its own database alone; export a row that"
                " looks them up by latents"
            )

    def _leaks(self, codes: np.ndarray, queries: np.ndarray | None) -> Leaks | None:
        if self._leak_check is None:
            return None
        leaks = self._leak_check(codes, queries)
        for warning in leaks.warnings:
            logger.warning(warning)
        return leaks


def _whole(name: str, number: object, least: int = 1) -> int:
    """A whole number, numpy's among them. Raises InputError where it is none or too small."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise InputError(f"{name} is {number!r}; give a whole number from {least} on")
    return int(number)
