"""The three rules of the structure: imports go down, harness changes no number, deps are files."""

import ast
from graphlib import TopologicalSorter

from dependencies import PIPELINES, ROOT, STAGES, changes_no_number, code, declared, imports

import pytest
import yaml

# The packages of stages/rissole, from the ground up; each imports from those before it only.
PACKAGES = [
    "harness",
    "core",
    "dataset",
    "pretrained",
    "first_stage",
    "latent",
    "retrieval",
    "denoiser",
    "drawing",
    "speed",
    "judging",
    "auditing",
    "results",
    "report",
    "export",
]
NO_STAGES = {"check_setup", "trace_sample", "export_model", "publish_results", "measure_speed"}
CONTENT = {path: yaml.safe_load(path.read_text())["stages"] for path in PIPELINES}
EVERY = [(path, name) for path, stages in CONTENT.items() for name in stages]


def named(pair) -> str:
    return f"{pair[0].parent.name}/{pair[1]}"


def test_every_script_is_a_stage_of_its_name_or_a_tool():
    stages = {name for _, name in EVERY}
    assert stages | NO_STAGES == {path.stem for path in STAGES.glob("*.py")}
    for path, name in EVERY:
        stage = CONTENT[path][name]
        commands = stage.get("do", stage)["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            assert command.split()[:2] == ["python", f"stages/{name}.py"]


# Rule 1: imports go down.


def test_every_package_has_its_place_and_is_introduced():
    folders = {path.parent.name for path in (STAGES / "rissole").glob("*/*.py")}
    assert folders == set(PACKAGES)
    text = (STAGES / "rissole" / "__init__.py").read_text()
    assert [line.split("`")[1] for line in text.splitlines() if line[:3] == "- `"] == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down(package):
    below = PACKAGES[: PACKAGES.index(package) + 1]
    for path in (STAGES / "rissole" / package).glob("*.py"):
        used = {of.parent.name for of in imports(path) if of.parent.name != "rissole"}
        assert used <= set(below), path


@pytest.mark.parametrize("package", PACKAGES)
def test_within_a_package_imports_do_not_go_round(package):
    modules = {path: imports(path) for path in (STAGES / "rissole" / package).glob("*.py")}
    graph = {path: {used for used in of if used in modules} for path, of in modules.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_no_stage_imports_another():
    for path in STAGES.glob("*.py"):
        assert all("rissole" in used.parts for used in imports(path)), path.name


# Rule 2: nothing that harness returns reaches an array or a results file.

HARNESS = sorted((STAGES / "rissole/harness").glob("*.py"))
PASSES_NO_DATA = {"None", "bool", "int", "str", "Path", "list[Path]", "ArgumentParser"}
TICKS = "Iterator[Callable[[], None]]"  # what a progress line is told


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: path.stem)
def test_harness_knows_no_array(path):
    tree = ast.parse(path.read_text())
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not names & {"numpy", "torch", "pyarrow", "pandas", "PIL", "safetensors", "yaml"}
    assert all(used.parent.name == "harness" for used in imports(path))


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: path.stem)
def test_harness_returns_nothing_that_could_be_data(path):
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        if not function.name.startswith("_"):
            assert function.returns is not None, function.name
            assert ast.unparse(function.returns) in PASSES_NO_DATA | {TICKS}, function.name


# Rule 3: a stage depends on the files that it imports, less the harness.


@pytest.mark.parametrize("pair", EVERY, ids=named)
def test_code_dependencies_are_the_imports_less_the_harness(pair):
    path, name = pair
    assert declared(CONTENT[path][name]) == code(name)


def test_no_stage_depends_on_the_harness_or_on_the_check_of_all_settings():
    for path, name in EVERY:
        listed = [STAGES / dep.removeprefix("stages/") for dep in declared(CONTENT[path][name])]
        assert not [dep for dep in listed if changes_no_number(dep) or dep.name == "harness"]


def test_library_modules_name_no_folder_of_the_project():
    for path in (STAGES / "rissole").glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Path":
                words = [of.value for of in node.args if isinstance(of, ast.Constant)]
                assert not [w for w in words if str(w).split("/")[0] in ("data", "metrics")], path


# And what dvc.yaml says beside.


def test_every_row_s_loss_curve_is_in_the_common_plot():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    rows = yaml.safe_load((ROOT / "params.yaml").read_text())["variants"]
    assert list(content["plots"][0]["loss"]["y"]) == [f"metrics/loss/{row}.csv" for row in rows]


def test_k_is_read_by_the_neighbour_tables_and_shown_by_the_report():
    stages = CONTENT[ROOT / "dvc.yaml"]
    readers = {name for name, of in stages.items() if "k" in of.get("do", of).get("params", [])}
    assert readers == {"retrieve_neighbours", "make_report"}


def test_the_ablations_stages_are_those_of_the_main_pipeline():
    main, ours = (CONTENT[path] for path in PIPELINES[:2])
    seeds = yaml.safe_load((STAGES / "ablations/params.yaml").read_text())["ablations"]["seeds"]
    assert set(ours) == {"retrieve_neighbours", "train_ldm", "sample_images", "compute_fid"}
    for name, stage in ours.items():
        mine, theirs = stage["do"], main[name]["do"]
        assert [dep.replace("ablations/", "") for dep in mine["deps"]] == theirs["deps"], name
        shared = [key for key in mine["params"] if isinstance(key, str)]
        assert shared == [key for key in theirs["params"] if "{" not in key or "preset" in key]
        assert isinstance(mine["cmd"], str) or len(mine["cmd"]) == len(seeds), name


def test_a_bare_repro_does_not_depend_on_the_ablations():
    for name, stage in CONTENT[ROOT / "dvc.yaml"].items():
        assert not any("ablations" in dep for dep in stage.get("do", stage)["deps"]), name


def test_the_top_level_is_what_the_readme_shows():
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    visible -= {"dvc_plots", "checkpoints"}  # made by DVC and by trainings, ignored by git
    folders = {"stages", "data", "metrics", "tests"}
    files = {"params.yaml", "dvc.yaml", "dvc.lock", "requirements.txt", "constraints.txt"}
    assert visible <= folders | files | {"README.md", "LICENSE"}
