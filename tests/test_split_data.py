"""Stage split_data: sides that hang on the pixels alone, no twins, nothing lost in silence."""

from pathlib import Path

import split_data
from rissole.dataset import images, prepare
from rissole.harness.errors import InputError

import numpy as np
import pytest
import yaml
from PIL import Image


def prepare_all_here(records, size):
    """What worker processes do, which take seconds to start."""
    return ((record, prepare.prepare(record, size)) for record in records)


@pytest.fixture
def stage(tmp_path, monkeypatch, capfd):
    """Run the stage in a new folder on the images below `root`; give its output and the sets."""
    monkeypatch.setattr(prepare, "prepare_all", prepare_all_here)

    def run(root, **settings):
        place = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        place.mkdir()
        monkeypatch.chdir(place)
        data = {"source": "folder", "root": str(root), "size": 8, "images": None, "shard": 16}
        data |= {
            "validation": 0.3,
            "labels": None,
            "groups": None,
            "classes": None,
            "unreadable": 0.1,
        } | settings
        Path("params.yaml").write_text(yaml.safe_dump({"data": data}))
        split_data.main()
        sets = {split: images.read_split(split_data.FOLDER, split) for split in images.SPLITS}
        return capfd.readouterr(), sets

    return run


def pixels(seed, height=12, width=10):
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plant(root, names, seeds):
    """Write the picture of each seed under its name, without loss."""
    for name, seed in zip(names, seeds, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path)


def sides(sets):
    """The ids of each split, as sets."""
    return {split: set(them.ids.tolist()) for split, them in sets.items()}


def test_the_split_is_stable_under_reordering_renaming_and_more_images(stage, tmp_path):
    seeds = range(30)
    plant(tmp_path / "one", [f"{seed:02}.png" for seed in seeds], seeds)
    plant(tmp_path / "two", [f"{seed % 3}/new{99 - seed}.bmp" for seed in seeds], seeds)
    plant(tmp_path / "two", [f"more{seed}.png" for seed in range(90, 95)], range(90, 95))
    one, two = (sides(stage(tmp_path / name)[1]) for name in ("one", "two"))
    assert one["train"] <= two["train"]
    assert one["val"] <= two["val"]
    assert len(one["train"] | one["val"]) == 30


def test_the_share_of_val_is_the_one_asked_for():
    alone = [split_data.side(None, number, 0.2) == "val" for number in range(20_000)]
    grouped = [split_data.side(f"person {i}", 0, 0.2) == "val" for i in range(20_000)]
    assert np.mean(alone) == pytest.approx(0.2, abs=0.012)
    assert np.mean(grouped) == pytest.approx(0.2, abs=0.012)


def test_groups_never_straddle(stage, tmp_path):
    names = [f"p{person}/{i}.png" for person in range(12) for i in range(4)]
    plant(tmp_path / "root", names, range(48))
    _, sets = stage(tmp_path / "root", groups="^([^/]+)/")
    train, val = (set(sets[split].groups) for split in images.SPLITS)
    assert not train & val
    assert len(train | val) == 12
    assert sets["train"].labels == sets["train"].groups


def test_duplicates_are_dropped_and_counted_however_they_are_encoded(stage, tmp_path):
    root = tmp_path / "root"
    plant(root, [f"{seed:02}.png" for seed in range(20)], range(20))
    plant(root, ["copy/a.png", "copy/b.bmp"], [3, 4])
    for shade in (0, 255):  # seen before the crop these two differ
        framed = np.pad(pixels(50, 8, 8), [(0, 0), (2, 2), (0, 0)], constant_values=shade)
        Image.fromarray(framed).save(root / f"frame {shade}.png")
    printed, sets = stage(root)
    assert sum(len(them.ids) for them in sets.values()) == 21
    assert "3 exact duplicates dropped" in printed.out.splitlines()[-1]
    assert "copy/a.png is left out, as it looks the same as 03.png" in printed.err
    everyone = np.concatenate([them.images for them in sets.values()])
    assert len({image.tobytes() for image in everyone}) == 21


def test_unreadable_files_are_listed_by_name_with_the_reason(stage, tmp_path):
    root = tmp_path / "root"
    plant(root, [f"{seed:02}.png" for seed in range(20)], range(20))
    (root / "odd").mkdir()
    (root / "odd/words.jpg").write_text("not a picture at all")
    (root / "odd/torn.png").write_bytes((root / "07.png").read_bytes()[:100])
    printed, sets = stage(root)
    assert "odd/words.jpg: not an image" in printed.err
    assert "odd/torn.png: " in printed.err
    assert "2 unreadable files left out" in printed.out.splitlines()[-1]
    assert sum(len(them.ids) for them in sets.values()) == 20


def test_the_last_line_and_the_data_card_say_what_was_written(stage, tmp_path):
    printed, sets = stage(None, source="avatars", images=40)
    train, val = (len(sets[split].ids) for split in images.SPLITS)
    assert train + val == 40
    last = f"{train} train and {val} val images -> data/split (0 exact duplicates dropped)"
    assert printed.out.splitlines()[-1] == f"split_data: {last}"
    card = Path("data/split/DATA_CARD.md").read_text("utf-8")
    for word in ("Johan Melin", "CC BY 4.0", f"{train} train", f"{val} val", "8 x 8 pixels"):
        assert word in card


def test_an_earlier_runs_shards_do_not_stay(stage, tmp_path):
    plant(tmp_path / "root", [f"{seed:02}.png" for seed in range(20)], range(20))
    stage(tmp_path / "root", shard=2)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("shard: 2", "shard: 99"))
    split_data.main()
    assert len(list(Path("data/split").glob("*.parquet"))) == 2


def test_too_few_images_for_two_sides_are_refused(stage, tmp_path):
    plant(tmp_path / "root", ["1.png", "2.png", "3.png"], range(3))
    with pytest.raises(InputError, match="data.validation"):
        stage(tmp_path / "root", validation=0.01)
