"""What params.yaml leaves to the images is filled in by their number and size."""

import io

from committed import ROOT
from rissole.dataset import images, sides
from rissole.dataset.sources import Record
from rissole.ground import config
from rissole.ground.derived import Extent
from rissole.ground.errors import InputError

import pyarrow as pa
import pytest
import yaml
from PIL import Image


@pytest.fixture
def folder():
    return config.read(ROOT / "params.yaml").under("folder")


@pytest.mark.parametrize(
    ("train", "first_stage", "denoiser", "drawn"),
    [
        (240, 2000, 1000, 180),
        (8000, 4000, 1500, 1000),
        (2_000_000, 1_000_000, 375_000, 1000),
    ],
)
def test_steps_and_drawn_images_follow_the_number_of_images(
    folder, train, first_stage, denoiser, drawn
):
    settings = folder.fitted(Extent(train, 64))
    assert settings.vqgan.steps == first_stage
    assert settings.variant_ldm("rissole_halo").steps == denoiser
    assert settings.row_sample("rissole").images == settings.sample.images == drawn
    assert settings.data.size == 64


def test_what_is_said_stays_as_it_is():
    said = config.read(ROOT / "params.yaml")
    settings = said.fitted(Extent(240, 32))
    for section in ("vqgan", "ldm", "sample", "data"):
        assert getattr(settings, section) == getattr(said, section)


def record(side: tuple[int, int] | None) -> Record:
    content = io.BytesIO()
    if side is not None:
        Image.new("RGB", side).save(content, "PNG")
    return Record("x", None, None, content.getvalue)


@pytest.mark.parametrize(
    ("found", "side"),
    [
        ([(64, 64)] * 3, 64),
        ([(500, 400)] * 2 + [(40, 40)], 64),
        ([(500, 40)] * 2 + [(500, 500)], 32),
        ([(16, 16)], 32),
        ([None, None, (40, 40)], 32),
        ([None], 64),
    ],
)
def test_pictures_are_no_larger_than_most_files(found, side):
    assert sides.fitting([record(of) for of in found]) == side


def test_a_split_tells_its_extent(tmp_path):
    pixels = pa.array([bytes(12)] * 3, pa.binary(12))
    for number in range(2):
        table = pa.table({"image": pixels}, metadata={"size": "2"})
        images.files.write_table(tmp_path / f"train-{number:05}.parquet", table)
    assert images.extent(tmp_path) == Extent(6, 2)


def test_settings_must_go_with_every_side_that_may_be_chosen(tmp_path, bad_inputs):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"preset": "folder", "blocks": 16}  # of a latent of 16 x 16, but not of 8 x 8
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    bad_inputs.add(("folder", "blocks", 16))
    with pytest.raises(InputError, match="blocks is 16: the latent's side 8 .*size 32"):
        config.read(tmp_path / "params.yaml")
