"""Pictures: decoding of whatever a file holds, cutting to size, shards, ranges, grids."""

import io
import os
import struct
import time
import weakref
import zlib
from functools import partial

from rissole.dataset import images
from rissole.dataset.sources import Record
from rissole.ground.errors import InputError

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch.set_num_threads(1)


def encoded(image, kind="PNG", **options):
    """The bytes of a PIL image as a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(*shape, seed=0):
    """Random pixels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(content):
    """The pixels that `decode` makes of a file, checked to be RGB."""
    image = images.decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def png16(levels):
    """A 16-bit PNG of `levels` (h, w) grey or (h, w, 3) colour, written by hand."""
    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if levels.ndim == 2 else 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def test_a_plain_picture_keeps_its_pixels():
    pixels = noise(5, 7, 3)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_picture_is_turned_as_its_exif_says(orientation, turns):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(decoded(content), np.rot90(pixels, turns))


def test_transparency_is_laid_on_white():
    pixels = noise(4, 4, 4)
    pixels[..., 3] = [0, 255, 128, 64]
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decoded(encoded(Image.fromarray(pixels))), expected, atol=1)


def test_a_palette_gives_its_colours_and_its_transparent_entry_white():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    plain = decoded(encoded(image))
    np.testing.assert_array_equal(plain, [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    see_through = decoded(encoded(image, transparency=1))
    np.testing.assert_array_equal(see_through, [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr"])
def test_other_kinds_of_pixels_become_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    grey = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(decoded(encoded(grey, kind)), np.full((4, 6, 3), 255))


def test_sixteen_bits_are_scaled_and_not_clipped():
    levels = np.array([[0, 257, 128 * 257, 200 * 257, 65535]])
    expected = np.array([[0, 1, 128, 200, 255]])[..., None].repeat(3, -1)
    np.testing.assert_array_equal(decoded(png16(levels)), expected)
    assert decoded(png16(levels[..., None] * [1, 0, 1]))[0, 3].tolist() == [200, 0, 200]
    tiff = encoded(Image.fromarray(levels.astype(np.uint16)), "TIFF")
    np.testing.assert_array_equal(decoded(tiff), expected)


def test_pixels_without_a_known_range_are_refused():
    with pytest.raises(ValueError, match="no known range"):
        images.decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_a_one_pixel_checkerboard_shrinks_to_flat_grey():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    small = images.fit(Image.fromarray(board).convert("RGB"), 64)
    assert small.shape == (64, 64, 3)
    assert np.abs(small.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("width, height", [(178, 218), (300, 100), (64, 90), (40, 50)])
def test_the_cut_agrees_with_another_antialiased_bilinear_resize(width, height):
    pixels = noise(height, width, 3)
    short = min(width, height)
    scaled = torch.nn.functional.interpolate(
        torch.tensor(pixels).movedim(-1, 0)[None].float(),
        (round(height * 64 / short), round(width * 64 / short)),
        mode="bilinear",
        antialias=True,
    )[0].movedim(0, -1)
    top, left = (scaled.shape[0] - 64) // 2, (scaled.shape[1] - 64) // 2
    expected = scaled[top : top + 64, left : left + 64]
    np.testing.assert_allclose(images.fit(Image.fromarray(pixels), 64), expected, atol=1.01)


def test_a_picture_of_the_right_size_is_not_touched():
    pixels = noise(32, 32, 3)
    np.testing.assert_array_equal(images.fit(Image.fromarray(pixels), 32), pixels)


def test_a_re_encoded_picture_has_the_same_id():
    image = Image.fromarray(noise(20, 30, 3))
    first, second = (
        images.prepare(Record("x", None, None, lambda kind=kind: encoded(image, kind)), 8)
        for kind in ("PNG", "BMP")
    )
    other = Image.fromarray(noise(20, 30, 3, seed=1))
    third = images.prepare(Record("x", None, None, lambda: encoded(other)), 8)
    assert (first.id, first.twin) == (second.id, second.twin)
    assert first.id != third.id
    assert first.twin != third.twin


@pytest.mark.parametrize("kind", images.FORMATS)
def test_the_kinds_that_are_said_to_be_read_are(kind):
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    assert images.decode(encoded(grey, kind)).getpixel((9, 9)) == pytest.approx((100,) * 3, abs=2)


@pytest.mark.parametrize("kind", ["EPS", "ICNS", "PCX", "SGI"])
def test_kinds_whose_readers_run_programs_or_are_rarely_used_are_not_opened(kind):
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        images.decode(encoded(Image.new("RGB", (32, 32)), kind))


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(Image.new("RGB", (99, 99)))[:60]])
def test_a_broken_file_is_a_reason_and_not_a_crash(content):
    reason = images.prepare(Record("x", None, None, lambda: content), 8)
    assert isinstance(reason, str)
    assert reason
    assert "0x" not in reason


def test_a_file_that_cannot_be_opened_is_a_reason_too(tmp_path):
    reason = images.prepare(Record("x", None, None, (tmp_path / "gone.png").read_bytes), 8)
    assert "gone.png" in reason


def rows(count, size, held=None):
    """Rows for `write_splits`, every third of them val; living pictures are kept track of."""
    for i in range(count):
        picture = images.Picture(i - 3, i, noise(size, size, 3, seed=i))
        if held is not None:
            held.add(picture)
        label, group = (None, None) if i % 5 == 0 else (f"label {i % 4}", f"group {i}")
        yield "val" if i % 3 == 0 else "train", Record(f"{i}.png", label, group, bytes), picture
        del picture


def test_what_is_written_is_read_back_in_order(tmp_path):
    counts = images.write_splits(tmp_path, rows(20, 8), 8, shard=4)
    assert counts == {"train": 13, "val": 7}
    for split in images.SPLITS:
        written = [row[1:] for row in rows(20, 8) if row[0] == split]
        read = images.read_split(tmp_path, split)
        assert read.images.dtype == np.uint8
        assert read.ids.dtype == np.int64
        np.testing.assert_array_equal(read.ids, [picture.id for _, picture in written])
        np.testing.assert_array_equal(read.images, [picture.pixels for _, picture in written])
        assert read.labels == [record.label for record, _ in written]
        assert read.groups == [record.group for record, _ in written]
        bare = images.read_split(tmp_path, split, pictures=False)
        np.testing.assert_array_equal(bare.ids, read.ids)
        assert bare.images.size == 0


def test_shards_hold_the_rows_asked_for_and_the_source(tmp_path):
    images.write_splits(tmp_path, rows(20, 8), 8, shard=4)
    tables = [pq.read_table(path) for path in sorted(tmp_path.glob("train-*.parquet"))]
    assert [len(table) for table in tables] == [4, 4, 4, 1]
    assert [len(part.ids) for part in images.read_shards(tmp_path, "train")] == [4, 4, 4, 1]
    assert tables[0]["source"].to_pylist() == ["1.png", "2.png", "4.png", "5.png"]
    assert tables[0].schema.metadata[b"size"] == b"8"
    assert tables[0].schema.field("image").type.byte_width == 8 * 8 * 3


def test_writing_holds_no_picture_longer_than_a_step(tmp_path):
    held, most = weakref.WeakSet(), 0
    for_ever = rows(300, 8, held)

    def watched():
        nonlocal most
        for row in for_ever:
            most = max(most, len(held))
            yield row
            del row

    images.write_splits(tmp_path, watched(), 8, shard=10)
    assert len(list(tmp_path.glob("*.parquet"))) == 30
    assert most <= 2


def test_preparing_many_images_holds_few_of_them(monkeypatch):
    held = weakref.WeakSet()

    def arrive(picture, state):
        vars(picture).update(state)
        held.add(picture)

    monkeypatch.setattr(images.Picture, "__setstate__", arrive, raising=False)
    content = encoded(Image.new("RGB", (4, 4)))
    records = [Record(str(i), None, None, io.BytesIO(content).getvalue) for i in range(1300)]
    most = done = 0
    for record, picture in images.prepare_all(records, 8):
        assert record.name == str(done)
        assert picture.pixels.shape == (8, 8, 3)
        if done == 0:
            time.sleep(2)  # for what comes ahead of who takes it
        most = max(most, len(held))
        done += 1
    assert done == 1300
    assert most <= 512


def test_an_image_that_crashes_its_decoder_is_named():
    content = encoded(Image.new("RGB", (4, 4)))
    records = [Record(str(i), None, None, io.BytesIO(content).getvalue) for i in range(600)]
    records[550] = Record("crash", None, None, partial(os._exit, 1))
    done = []
    with pytest.raises(InputError, match="ended all at once, at '") as error:
        done.extend(record.name for record, _ in images.prepare_all(records, 8))
    assert done == [str(i) for i in range(len(done))]
    assert f"at '{len(done)}' or soon after" in str(error.value)
    assert 512 <= len(done) <= 544


def test_a_missing_split_says_what_makes_it(tmp_path):
    with pytest.raises(InputError, match="dvc repro"):
        images.read_split(tmp_path, "train")


def test_every_level_survives_the_way_to_a_tensor_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    tensor = images.to_float(levels)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (1, 3, 16, 16))
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(images.to_uint8(tensor), levels)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_a_tensor_becomes_the_nearest_level(values):
    tensor = torch.tensor(values, dtype=torch.float64).float()
    levels = images.to_uint8(tensor.reshape(1, 1, 1, -1).expand(1, 3, 1, -1))
    exact = np.clip((tensor.double().numpy() + 1) * 127.5, 0, 255)
    assert np.abs(levels[0, 0, :, 0] - exact).max() <= 0.5 + 1e-4


def pixels_of(path):
    """The pixels of a picture on disk."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def smooth(count, size):
    """Pictures of soft colour blobs, as photographs are: too many colours for a palette."""
    small = Image.fromarray(noise(4, 4 * count, 3))
    wide = np.asarray(small.resize((size * count, size), Image.Resampling.BICUBIC))
    return wide.reshape(size, count, size, 3).swapaxes(0, 1)


@pytest.mark.parametrize("make", [lambda: noise(32, 64, 64, 3), lambda: smooth(32, 64)])
def test_a_grid_of_32_pictures_weighs_less_than_200_kb(tmp_path, make):
    path = tmp_path / "deep" / "grid.png"
    images.write_grid(path, make(), columns=8)
    assert path.stat().st_size < 200_000
    assert pixels_of(path).shape == (256, 512, 3)


def test_a_grid_of_large_pictures_shrinks_until_it_fits(tmp_path):
    images.write_grid(tmp_path / "grid.png", noise(16, 224, 224, 3), columns=8)
    assert (tmp_path / "grid.png").stat().st_size < 200_000


def test_a_grid_reads_row_by_row_and_keeps_true_colour_where_it_fits(tmp_path):
    pictures = noise(5, 4, 6, 3)
    images.write_grid(tmp_path / "grid.png", pictures, columns=3)
    sheet = pixels_of(tmp_path / "grid.png")
    assert sheet.shape == (8, 18, 3)
    np.testing.assert_array_equal(sheet[:4, 6:12], pictures[1])
    np.testing.assert_array_equal(sheet[4:, :6], pictures[3])
    assert (sheet[4:, 12:] == 255).all()


def test_of_a_strip_the_middle_is_kept():
    strip = np.zeros((1, 100_000, 3), np.uint8)
    strip[:, 49_000:51_000, 0] = 255
    assert (images.fit(Image.fromarray(strip), 8) == [255, 0, 0]).all()
    assert (images.fit(Image.fromarray(strip.swapaxes(0, 1)), 8) == [255, 0, 0]).all()
