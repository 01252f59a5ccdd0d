"""An exported model: it draws what the project drew, alone, and tells a copy from a likeness."""

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rissole.core import config, files
from rissole.dataset import images
from rissole.export import bundle
from rissole.export.pipeline import RissolePipeline
from rissole.harness.errors import InputError
from tiny import ENVIRONMENT, OFFLINE_LOG, ROOT

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

# Beside the rows of the tiny project, one of every other kind of what a denoiser is told and sees.
VARIANTS = {
    "halo": {
        "context": "neighbours/main",
        "neighbours": "set",
        "halo": 2,
        "ldm": {"share_timestep": "image"},
    },
    "previous": {"context": "neighbours/main", "neighbours": "stack", "previous": True},
    "tokens": {"context": "neighbours/embedding", "neighbours": "tokens", "blocks": 1},
    "pixel": {"context": "neighbours/main", "neighbours": "stack", "space": "pixel"},
    "pixel_alone": {"context": "latents", "space": "pixel"},
}
ROWS = [*VARIANTS, "no_rag", "released"]
DRAW = ("sample_images", "compute_fid")
pytestmark = pytest.mark.slow  # test_export.py has what needs no model


@pytest.fixture(scope="module")
def project(clone, tmp_path_factory):
    """The tiny project with rows of every kind, drawn and scored."""
    folder = tmp_path_factory.mktemp("export") / "project"
    shutil.copytree(clone[0], folder, ignore=shutil.ignore_patterns(".git", ".dvc"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["variants"] |= VARIANTS
    context = {name: of["context"] for name, of in VARIANTS.items()}
    params["rows"] |= {name: {"variant": name, "context": context[name]} for name in VARIANTS}
    for name in VARIANTS:
        params["rows"][name]["may_copy"] = True  # as four steps of training say nothing of that
    params["retrievals"]["embedding"] = {"query": "embedding"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        import_module("retrieve_neighbours").main("embedding")
        for name in VARIANTS:
            import_module("train_ldm").main(name)
            for stage in DRAW:
                import_module(stage).main(name)
    return folder


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    """The folder of every row's model, by row, moved away from where it was written."""
    top = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for row in ROWS:
            export(top / "first" / row, row)
    (top / "first").rename(top / "else where")
    return {row: top / "else where" / row for row in ROWS}


@pytest.fixture
def pipe(exported):
    """The model of `halo`, loaded here."""
    return load(exported["halo"])


def export(folder: Path, row: str) -> None:
    bundle.write(folder, row, config.read(), Path("data"), Path("metrics"))


def load(folder: Path) -> RissolePipeline:
    pipe = RissolePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(project: Path, row: str) -> np.ndarray:
    return images.read_pictures(project / f"data/samples/{row}/samples.parquet")


def arrays(output) -> np.ndarray:
    return np.stack([np.asarray(image) for image in output.images])


def save(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def theirs(project, tmp_path):
    """A folder of 30 images that the model was not trained on or only by chance."""
    pictures = images.read_split(project / "data/split", "train").images[:30]
    return save(tmp_path / "theirs", np.rot90(pictures, 2, (1, 2)))


def linked_environment(folder: Path, lines: list[str]) -> Path:
    """A virtual environment of these packages and what they ask for, as links; its Python."""
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    waiting, seen = [Requirement(line) for line in lines], set()
    while waiting:
        wanted = waiting.pop()
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:  # of another platform
            continue
        if wanted.name in seen or not (wanted.marker is None or wanted.marker.evaluate()):
            continue
        seen.add(wanted.name)
        waiting += [Requirement(line) for line in package.requires or []]
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(package.locate_file(top)))
    return folder / "bin/python"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.S)


ALONE = """
import sys

sys.path.insert(0, {folders}[0])
import numpy as np, torch
from rissole_pipeline import RissolePipeline

torch.set_num_threads(1)
for folder in {folders}:
    pipe = RissolePipeline.from_pretrained(folder)
    pictures = [np.asarray(image) for image in pipe(num_images=12).images]
    np.save(sys.argv[1] + "/" + pipe.config["row"], np.stack(pictures))
assert not {{"dvc", "scann", "torchvision", "pandas"}} & set(sys.modules)
"""


def test_a_moved_model_draws_the_project_s_images_bit_by_bit_with_its_own_packages_alone(
    project, exported, theirs, tmp_path
):
    """No DVC, no ScaNN, no network, another folder: what requirements.txt names is all there is."""
    lines = (exported["halo"] / "requirements.txt").read_text().splitlines()
    python = linked_environment(tmp_path / "venv", lines)
    folders = [str(exported[row]) for row in ROWS]
    card = (exported["halo"] / "README.md").read_text()
    (lines_of_card,) = python_blocks(card)
    image = str(theirs / "03.png")
    for name, there in {"DIR": folders[0], "FOLDER": str(theirs), "a.png": image}.items():
        lines_of_card = lines_of_card.replace(f'"{name}"', repr(there))
    (tmp_path / "drawn").mkdir()
    script = tmp_path / "draw.py"
    script.write_text(ALONE.format(folders=folders) + lines_of_card)
    done = subprocess.run(
        [python, script, tmp_path / "drawn"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for row in ROWS:
        assert np.array_equal(np.load(tmp_path / f"drawn/{row}.npy"), drawn(project, row)), row
    assert not OFFLINE_LOG.exists(), OFFLINE_LOG.read_text()


def test_diffusers_own_way_loads_the_same(project, exported, tmp_path):
    """In a process of its own, as it copies code into a cache that is chosen at import."""
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'stages')!r}, {str(exported['released'])!r}]\n"
        "from rissole.pretrained import compat; compat.arm()\n"
        "import rissole_pipeline, numpy as np, torch; from diffusers import DiffusionPipeline\n"
        "torch.set_num_threads(1)\n"
        f"pipe = DiffusionPipeline.from_pretrained({str(exported['released'])!r},"
        " custom_pipeline='rissole_pipeline', trust_remote_code=True)\n"
        f"np.save({str(tmp_path / 'a.npy')!r}, pipe(num_images=12, output_type='np').images)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=ENVIRONMENT | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    levels = np.load(tmp_path / "a.npy") * 255
    assert np.array_equal(levels.round().astype(np.uint8), drawn(project, "released"))


def test_queries_and_neighbours_are_those_of_the_samples(project, exported):
    table = files.read_table(project / "data/samples/released/samples.parquet")
    output = load(exported["released"])(num_images=12)
    assert output.queries == table["query"].to_pylist()
    assert output.neighbours == table["neighbours"].to_pylist()
    assert output.leaks is None


def test_a_train_image_as_query_is_told_what_it_was_told_but_never_itself(project, exported):
    """The rows `halo` and `released` look up alike; only the latter's table has the query in it."""
    known = images.read_split(project / "data/split", "train")
    for row in ("halo", "released"):
        pipe = load(exported[row])
        for number, own in enumerate(pipe(num_images=4).queries):
            picture = known.images[known.ids.tolist().index(own)]
            (told,) = pipe(query=Image.fromarray(picture)).neighbours
            usual = pipe(num_images=4).neighbours[number]
            assert own not in told
            assert told == usual or (row == "released" and told[:-1] == usual[1:])


def test_queries_may_be_paths_and_images_of_any_mode_and_serve_in_turn(pipe, theirs):
    path = theirs / "01.png"
    image = Image.open(path)
    output = pipe(num_images=5, query=[path, image.convert("CMYK"), str(path)])
    assert output.neighbours[0] == output.neighbours[2] == output.neighbours[3]
    assert output.neighbours[1] == output.neighbours[4]
    assert output.queries is None
    sideways = image.transpose(Image.Transpose.ROTATE_270)
    sideways.getexif()[274] = 8  # to be turned by a quarter
    assert pipe(query=sideways).neighbours == pipe(query=image).neighbours


def test_neighbours_come_from_their_folder_and_never_are_the_query(pipe, theirs):
    before = arrays(pipe(num_images=4))
    assert pipe.retrieve_from(theirs) == {}
    output = pipe(num_images=30)
    names = {path.name for path in theirs.iterdir()}
    assert set(output.queries) == names
    for query, told in zip(output.queries, output.neighbours, strict=True):
        assert len(set(told)) == 3 and set(told) <= names - {query}
    assert output.leaks.images == 30
    pipe.retrieve_from(None)
    output = pipe(num_images=4)
    assert np.array_equal(arrays(output), before) and output.leaks is None
    assert not np.array_equal(arrays(pipe(num_images=4, seed=7)), before)


def test_their_folder_with_the_train_images_has_the_neighbours_of_the_database(
    project, exported, tmp_path
):
    """An oracle: the neighbour tables of the project, but for mirrors and ids."""
    pipe = load(exported["halo"])
    known = images.read_split(project / "data/split", "train")
    pipe.retrieve_from(save(tmp_path / "train", known.images))
    output = pipe(num_images=len(known.ids), num_inference_steps=1)
    table = files.read_table(project / "data/neighbours/main/train.parquet")
    usual = dict(zip(table["id"].to_pylist(), table["neighbours"].to_pylist(), strict=True))
    same = [
        [known.ids[int(Path(name).stem)] for name in told]
        == usual[known.ids[int(Path(query).stem)]]
        for query, told in zip(output.queries, output.neighbours, strict=True)
    ]
    assert np.mean(same) > 0.95  # those whose codes another image has are left out of the folder


def test_what_cannot_be_read_and_what_looks_the_same_is_named(pipe, theirs, caplog):
    (theirs / "broken.png").write_bytes((theirs / "00.png").read_bytes()[:60])
    Image.open(theirs / "05.png").save(theirs / "again.bmp")
    mirrored = Image.open(theirs / "05.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(theirs / "mirror.png")
    left_out = pipe.retrieve_from(theirs)
    assert left_out.keys() == {"broken.png", "again.bmp", "mirror.png"}
    for name in ("again.bmp", "mirror.png"):
        assert left_out[name] == "looks the same as 05.png, or is its mirror"
    assert all(f"{name}: left out: {why}" in caplog.text for name, why in left_out.items())


@pytest.mark.parametrize("images_there", [0, 3])
def test_a_folder_of_too_few_images_is_refused_with_the_number(pipe, tmp_path, images_there):
    pictures = np.random.default_rng(0).integers(0, 256, (images_there, 32, 32, 3), np.uint8)
    folder = save(tmp_path / "few", pictures)
    wanted = "give at least 4" if images_there else "holds no images; name a folder"
    with pytest.raises(InputError, match=wanted):
        pipe.retrieve_from(folder)
    with pytest.raises(InputError, match="is not a folder"):
        pipe.retrieve_from(tmp_path / "none")


@pytest.mark.parametrize(
    ("row", "asked", "said"),
    [
        ("halo", {"query": []}, "empty list"),
        ("halo", {"query": "none.png"}, "query 0, none.png, cannot be read: .*No such file"),
        ("halo", {"query": Image.new("F", (9, 9))}, "query 0 cannot be read: 32-bit"),
        ("halo", {"num_images": 0}, "num_images is 0"),
        ("halo", {"num_images": 1, "query": ["a.png", "b.png"]}, "there are 2 queries"),
        ("halo", {"seed": -1}, "seed is -1"),
        ("halo", {"num_inference_steps": 3}, "must divide the 1000 timesteps"),
        ("halo", {"output_type": "pt"}, "take 'pil' or 'np'"),
        ("no_rag", {"query": Image.new("RGB", (9, 9))}, "row no_rag retrieves nothing"),
        ("tokens", {"query": Image.new("RGB", (9, 9))}, "row tokens looks neighbours up by an enc"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(row, asked, said, exported, bad_inputs):
    with pytest.raises(InputError, match=said):
        load(exported[row])(**asked)
    bad_inputs.add(("export", row, str(asked)))


CHANGED = [
    "denoiser/denoiser.safetensors",
    "database/queries.parquet",
    "rissole/drawing/samplers.py",
    "checksums.json",
    "model_index.json",  # the one that diffusers misses first
]


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "changed") for name in CHANGED] + [(name, "missing") for name in CHANGED[:-1]],
)
def test_a_model_with_a_file_changed_or_missing_is_refused(
    name, how, exported, tmp_path, bad_inputs
):
    folder = shutil.copytree(exported["halo"], tmp_path / "model")
    content = (folder / name).read_bytes()
    if how == "missing":
        (folder / name).unlink()
    else:
        place = -1 if name == "model_index.json" else len(content) // 2  # still to be parsed
        other = bytearray(content)
        other[place] = ord(" ") if place < 0 else other[place] ^ 1
        (folder / name).write_bytes(other)
    with pytest.raises(InputError, match=f"{name}: missing, or changed since it was exported"):
        RissolePipeline.from_pretrained(folder)
    bad_inputs.add(("export", name, how))


def test_a_model_whose_code_is_not_the_loaded_one_is_refused(exported, tmp_path):
    """Two models of two versions of the project do not go into one process."""
    folder = shutil.copytree(exported["halo"], tmp_path / "model")
    code = folder / "rissole/drawing/samplers.py"
    code.write_text(code.read_text() + "\n")
    digests = files.read_record(folder / "checksums.json")
    digests["rissole/drawing/samplers.py"] = files.digest(code)
    files.write_record(folder / "checksums.json", digests)
    with pytest.raises(InputError, match="load each model in a process of its own"):
        RissolePipeline.from_pretrained(folder)


def test_saving_a_model_copies_its_folder(exported, pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "copy")
    names = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*.*")}
    there = {path.relative_to(exported["halo"]) for path in exported["halo"].rglob("*.*")}
    assert names == {path for path in there if "__pycache__" not in path.parts}
    assert np.array_equal(arrays(load(tmp_path / "copy")(2)), arrays(pipe(2)))


def test_nothing_in_the_folder_is_a_pickle(exported):
    kinds = {".safetensors", ".json", ".parquet", ".py", ".md", ".txt", ""}
    for folder in exported.values():
        paths = [path for path in folder.rglob("*") if path.is_file()]
        paths = [path for path in paths if path.parent.name != "__pycache__"]
        assert {path.suffix for path in paths} <= kinds
        assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"PK") for path in paths)


def test_the_card_says_what_was_measured_and_whose_the_data_are(project, exported):
    card = (exported["halo"] / "README.md").read_text()
    fid = json.loads((project / "metrics/fid/halo.json").read_text())
    audit = json.loads((project / "metrics/audit/halo.json").read_text())
    assert f"| {fid['fd_effnet_lite1']['val']:.1f} |" in card
    assert f"{audit['copied']['rate']:.1%} of the drawn images are named copies" in card
    assert f"{audit['own_query']['rate']:.1%} are nearest to their own query" in card
    assert (project / "data/split/DATA_CARD.md").read_text().splitlines()[2] in card
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "other" and header["library_name"] == "diffusers"
    assert (exported["halo"] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def script(folder: Path, *words) -> subprocess.CompletedProcess:
    line = [sys.executable, "stages/export_model.py", *map(str, words)]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def test_who_exports_an_accused_row_is_told(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project")
    path = folder / "metrics/audit/halo.json"
    audit = json.loads(path.read_text())
    for accused in ([], ["own_query"]):
        path.write_text(json.dumps(audit | {"accused": accused}))
        model = tmp_path / "_".join(["model", *accused])
        line = script(folder, "halo", model).stdout
        assert ("accused of copying: they are their own query images" in line) is bool(accused)
        assert ("accused of copying" in (model / "README.md").read_text()) is bool(accused)


def test_an_ablation_with_neighbours_of_its_own_is_exported(project, tmp_path, monkeypatch):
    folder = shutil.copytree(project, tmp_path / "project")
    ablations = {
        "seeds": [0, 1],
        "retrievals": {"k_2": {"k": 2}},
        "variants": {"k_2": {"context": "neighbours/ablations/k_2", "neighbours": "stack"}},
        "rows": {
            "k_2": {
                "variant": "ablations/k_2",
                "context": "neighbours/ablations/k_2",
                "may_copy": True,
            }
        },
    }
    (folder / "stages/ablations").mkdir()
    (folder / "stages/ablations/params.yaml").write_text(yaml.safe_dump({"ablations": ablations}))
    monkeypatch.chdir(folder)
    import_module("retrieve_neighbours").main("ablations/k_2")
    for stage in ("train_ldm", *DRAW):
        import_module(stage).main("ablations/k_2/1")
    export(tmp_path / "model", "ablations/k_2/1")
    pipe = load(tmp_path / "model")
    assert pipe.config["seed"] == 1
    assert np.array_equal(arrays(pipe(num_images=4)), drawn(folder, "ablations/k_2/1")[:4])


@pytest.mark.parametrize(
    ("row", "where", "said"),
    [
        ("releasd", "new", "did you mean 'released'?"),
        ("released", "full", "exists and is not empty"),
        ("undrawn", "new", "run `dvc repro compute_fid@undrawn`"),
        ("redrawn", "new", "with another checkpoint than data/ldm/no_rag/best.safetensors"),
        ("resettled", "new", "with another steps and another k than data/ldm/released"),
        ("reseeded", "new", "with another seed and another k than data/ldm/released"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    row, where, said, project, tmp_path, monkeypatch, bad_inputs
):
    folder = shutil.copytree(project, tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for name in ("undrawn", "redrawn"):
        params["rows"][name] = params["rows"]["no_rag"]
    params["rows"]["resettled"] = params["rows"]["released"] | {"sample": {"steps": 1}}
    params["rows"]["reseeded"] = params["rows"]["released"] | {"seed": 7}
    params["k"] = 4
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("redrawn", "resettled", "reseeded"):
        shutil.copytree(folder / "data/samples/released", folder / f"data/samples/{name}")
        for kind in ("fid", "audit"):
            shutil.copy(
                folder / f"metrics/{kind}/released.json", folder / f"metrics/{kind}/{name}.json"
            )
    (tmp_path / "to/full").mkdir(parents=True)
    (tmp_path / "to/full/file").write_text("theirs")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=re.escape(said)):
        export(tmp_path / "to" / where, row)
    assert [path.name for path in (tmp_path / "to").rglob("*")] == ["full", "file"]
    bad_inputs.add(("export", row, where))
