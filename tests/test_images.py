"""Pictures: decoding of whatever a file holds, cutting to size, shards, ranges, grids."""

import io
import os
import struct
import time
import weakref
import zlib
from functools import partial

from rissole.dataset import images, prepare
from rissole.dataset.sources import Record
from rissole.harness.errors import InputError

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
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
    image = prepare.decode(content)
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
    np.testing.assert_allclose(prepare.fit(Image.fromarray(pixels), 64), expected, atol=1.01)


@pytest.mark.parametrize("kind", prepare.FORMATS)
def test_the_kinds_that_are_said_to_be_read_are(kind):
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    assert prepare.decode(encoded(grey, kind)).getpixel((9, 9)) == pytest.approx((100,) * 3, abs=2)


@pytest.mark.parametrize("kind", ["EPS", "SGI"])
def test_kinds_whose_readers_run_programs_or_are_rarely_used_are_not_opened(kind):
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        prepare.decode(encoded(Image.new("RGB", (32, 32)), kind))


def rows(count, size, held=None):
    """Rows for `write_splits`, every third of them val; living pictures are kept track of."""
    for i in range(count):
        picture = prepare.Picture(i - 3, i, noise(size, size, 3, seed=i))
        if held is not None:
            held.add(picture)
        label, group = (None, None) if i % 5 == 0 else (f"label {i % 4}", f"group {i}")
        yield "val" if i % 3 == 0 else "train", Record(f"{i}.png", label, group, bytes), picture
        del picture


def test_what_is_written_is_read_back_in_order(tmp_path):
    counts = prepare.write_splits(tmp_path, rows(20, 8), 8, shard=4)
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
    prepare.write_splits(tmp_path, rows(20, 8), 8, shard=4)
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

    prepare.write_splits(tmp_path, watched(), 8, shard=10)
    assert len(list(tmp_path.glob("*.parquet"))) == 30
    assert most <= 2


@pytest.mark.slow
def test_preparing_many_images_holds_few_of_them(monkeypatch):
    held = weakref.WeakSet()

    def arrive(picture, state):
        vars(picture).update(state)
        held.add(picture)

    monkeypatch.setattr(prepare.Picture, "__setstate__", arrive, raising=False)
    content = encoded(Image.new("RGB", (4, 4)))
    records = [Record(str(i), None, None, io.BytesIO(content).getvalue) for i in range(1300)]
    most = done = 0
    for record, picture in prepare.prepare_all(records, 8):
        assert record.name == str(done)
        assert picture.pixels.shape == (8, 8, 3)
        if done == 0:
            time.sleep(2)  # for what comes ahead of who takes it
        most = max(most, len(held))
        done += 1
    assert done == 1300
    assert most <= 512


@pytest.mark.slow
def test_an_image_that_crashes_its_decoder_is_named():
    content = encoded(Image.new("RGB", (4, 4)))
    records = [Record(str(i), None, None, io.BytesIO(content).getvalue) for i in range(600)]
    records[550] = Record("crash", None, None, partial(os._exit, 1))
    done = []
    with pytest.raises(InputError, match="ended all at once, at '") as error:
        done.extend(record.name for record, _ in prepare.prepare_all(records, 8))
    assert done == [str(i) for i in range(len(done))]
    assert f"at '{len(done)}' or soon after" in str(error.value)
    assert 512 <= len(done) <= 544


def test_every_level_survives_the_way_to_a_tensor_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    tensor = images.to_float(levels)
    assert (tensor.dtype, tensor.shape) == (torch.float32, (1, 3, 16, 16))
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(images.to_uint8(tensor), levels)
    np.testing.assert_array_equal(images.to_uint8(tensor + 0.49 / 127.5), levels)  # the nearest
    assert images.to_uint8(tensor * 3).min() == 0 and images.to_uint8(tensor * 3).max() == 255


def pixels_of(path):
    """The pixels of a picture on disk."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_grid_weighs_less_than_200_kb_and_shrinks_only_where_it_must(tmp_path):
    path = tmp_path / "deep" / "grid.png"
    images.write_grid(path, noise(32, 64, 64, 3), columns=8)
    assert path.stat().st_size < 200_000
    assert pixels_of(path).shape == (256, 512, 3)
    images.write_grid(path, noise(4, 200, 200, 3), columns=2)
    assert path.stat().st_size < 200_000


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
    assert (prepare.fit(Image.fromarray(strip), 8) == [255, 0, 0]).all()
    assert (prepare.fit(Image.fromarray(strip.swapaxes(0, 1)), 8) == [255, 0, 0]).all()
