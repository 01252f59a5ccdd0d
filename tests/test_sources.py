"""Sources: what is listed, in which order, under which label and group, and what is refused."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from rissole.dataset import prepare, sources
from rissole.dataset.settings import Data
from rissole.harness.errors import InputError

import numpy as np
import pytest
from PIL import Image


def data(source, root=None, **settings):
    """Section `data` with what a test says."""
    plain = {
        "size": 16,
        "images": None,
        "validation": 0.2,
        "labels": None,
        "groups": None,
        "classes": None,
        "unreadable": 0.01,
    }
    root = None if root is None else str(root)
    return Data(**{"source": source, "root": root, "shard": 8, **plain, **settings})


def plant(root, *names):
    """Write small pictures below `root`, each of its own colour."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (i * 37 % 256, i * 91 % 256, 7)).save(path)


def listed(settings):
    """Name, label and group of each record."""
    return [(record.name, record.label, record.group) for record in sources.records(settings)]


def drawn(count):
    """A digest of the first avatars' pixels."""
    records = sources.records(data("avatars", images=count))
    pixels = b"".join(prepare.prepare(record, 16).pixels.tobytes() for record in records)
    return hashlib.sha256(pixels).hexdigest()


@pytest.mark.slow
def test_avatars_are_the_same_in_another_process():
    program = "import test_sources; print(test_sources.drawn(6))"
    paths = os.pathsep.join(path for path in [str(Path(__file__).parent), *sys.path] if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == drawn(6)


def test_avatars_differ_are_opaque_and_labelled_by_their_hair():
    records = sources.records(data("avatars", images=40))
    pictures = [prepare.prepare(record, 16) for record in records]
    assert len({picture.twin for picture in pictures}) == 40
    assert {record.label for record in records} == set(sources.HAIR)
    assert all(np.asarray(prepare.decode(record.read())).std() > 10 for record in records[:4])


def test_avatars_use_only_options_that_the_style_knows():
    """DiceBear takes an unknown variant in silence."""
    from dicebear import OptionsDescriptor

    known = OptionsDescriptor(sources._style()).to_json()
    assert set(sources.HAIR) == set(known["hairVariant"]["values"])
    for option, value in sources.OPTIONS.items():
        assert option in known
        if option.endswith("Variant"):
            assert set(value) == set(known[option]["values"])


def test_a_folder_is_listed_in_the_order_of_its_paths_with_sub_folders_as_labels(tmp_path):
    plant(tmp_path, "b/2.png", "b/deep/1.JPG", "a/x y.webp", "top.png", ".hidden.png", "b/.t/1.png")
    (tmp_path / "b/notes.txt").write_text("no picture")
    assert listed(data("folder", tmp_path)) == [
        ("a/x y.webp", "a", None),
        ("b/2.png", "b", None),
        ("b/deep/1.JPG", "b", None),
        ("top.png", None, None),
    ]


def test_regular_expressions_on_the_path_find_group_and_label(tmp_path):
    plant(tmp_path, "x/ann_1.png", "x/ann_2.png", "y/bob_1.png")
    groups = [group for _, _, group in listed(data("folder", tmp_path, groups="([a-z]+)_"))]
    assert groups == ["ann", "ann", "bob"]
    labels = [label for _, label, _ in listed(data("folder", tmp_path, labels="_([0-9])"))]
    assert labels == ["1", "2", "1"]
    with pytest.raises(InputError, match="data.labels.*x/ann_1.png"):
        listed(data("folder", tmp_path, labels="(sign[0-9])"))
    with pytest.raises(InputError, match="data.groups.*x/ann_1.png"):
        listed(data("folder", tmp_path, groups="(person[0-9]+)"))


def test_a_class_list_chooses_sub_folders(tmp_path):
    plant(tmp_path / "root", "a/1.png", "b/1.png", "c/1.png")
    classes = tmp_path / "classes.txt"
    classes.write_text("c\n\na\n")
    found = listed(data("folder", tmp_path / "root", classes=str(classes)))
    assert [name for name, _, _ in found] == ["a/1.png", "c/1.png"]
    with pytest.raises(InputError, match="nowhere.txt"):
        listed(data("folder", tmp_path / "root", classes=str(tmp_path / "nowhere.txt")))


def test_a_bound_on_the_images_keeps_every_folders_share(tmp_path):
    plant(tmp_path, *(f"{top}/{i:02}.png" for top in "abcd" for i in range(10)))
    labels = [label for _, label, _ in listed(data("folder", tmp_path, images=8))]
    assert labels == list("aabbccdd")
    assert len(listed(data("folder", tmp_path, images=1000))) == 40


def test_a_name_that_is_not_utf_8_can_be_written_down(tmp_path):
    plant(tmp_path, "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    (record,) = sources.records(data("folder", tmp_path))
    assert record.name == "caf?.png"
    assert prepare.prepare(record, 16).pixels.shape == (16, 16, 3)


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(InputError, match="data.root.*nowhere"):
        listed(data("folder", tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no images"):
        listed(data("folder", tmp_path))


def celeba(root, count=6):
    """A small tree in CelebA's layout, two pictures of each person."""
    names = [f"{i:06}.jpg" for i in range(1, count + 1)]
    plant(root / "img_align_celeba", *names)
    parts, people = (
        "".join(f"{name} {value(i)}\n" for i, name in enumerate(names))
        for value in (lambda i: i % 3, lambda i: 2880 + i // 2)
    )
    (root / "list_eval_partition.txt").write_text(parts)
    (root / "identity_CelebA.txt").write_text(people)


def test_celeba_is_grouped_by_identity(tmp_path):
    celeba(tmp_path)
    found = listed(data("celeba", tmp_path))
    assert found[0] == ("000001.jpg", None, "2880")
    assert [group for _, _, group in found] == ["2880", "2880", "2881", "2881", "2882", "2882"]
    assert prepare.prepare(sources.records(data("celeba", tmp_path))[0], 16).pixels.shape[0] == 16


@pytest.mark.parametrize(
    "missing", ["list_eval_partition.txt", "identity_CelebA.txt", "img_align_celeba"]
)
def test_celebas_missing_parts_are_named(tmp_path, missing):
    celeba(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=missing):
        listed(data("celeba", tmp_path))


def test_celebas_lists_must_count_the_images_of_the_folder(tmp_path):
    celeba(tmp_path)
    (tmp_path / "img_align_celeba/000004.jpg").unlink()
    with pytest.raises(InputError, match="5 images.*partition.*6.*000004.jpg"):
        listed(data("celeba", tmp_path))


@pytest.mark.parametrize("inner", ["", "train"])
def test_imagenet100_reads_the_listed_class_folders(tmp_path, inner):
    root = tmp_path / "imagenet100"
    plant(root / inner, "n01440764/n01440764_1.JPEG", "n02077923/n02077923_7.JPEG", "n0/x.JPEG")
    classes = tmp_path / "imagenet100.txt"
    classes.write_text("n02077923\nn01440764\n")
    assert listed(data("imagenet100", root, classes=str(classes))) == [
        ("n01440764/n01440764_1.JPEG", "n01440764", None),
        ("n02077923/n02077923_7.JPEG", "n02077923", None),
    ]
    classes.write_text("n01440764\nn99999999\n")
    with pytest.raises(InputError, match="n99999999"):
        listed(data("imagenet100", root, classes=str(classes)))
    classes.write_text("n01440764\nn02077923\nn01440764\n")
    with pytest.raises(InputError, match="names n01440764 more than once"):
        listed(data("imagenet100", root, classes=str(classes)))
