"""dvc.yaml says what the scripts do: names, code they import, the order of the packages."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
STAGES = ROOT / "stages"
# The packages of stages/rissole, from the ground up; each imports from those before it only.
PACKAGES = [
    "ground",
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


def dag():
    with Repo(ROOT) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


DAG = dag()


def imports(path: Path) -> set[Path]:
    """The project's files that one file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        files = [STAGES.joinpath(*name.split(".")).with_suffix(".py") for name in names]
        found |= {file for file in files if file.exists()}
    return found


def reached(path: Path) -> set[Path]:
    """A script and every project file that it imports, directly or not."""
    found, todo = set(), [path]
    while todo:
        found.add(path := todo.pop())
        todo += imports(path) - found
    return found


def name_of(stage) -> str:
    """A stage's name without its row and its file."""
    return stage.addressing.rpartition(":")[2].partition("@")[0]


def script(stage) -> Path:
    return ROOT / next(word for word in stage.cmd.split() if word.endswith(".py"))


def test_every_script_but_eight_is_a_stage_of_its_name_and_every_stage_a_script():
    named = {name_of(stage) for stage in DAG.values()} | {
        "check_setup",
        "trace_sample",
        "export_model",
        "publish_results",
        "measure_speed",
        "measure_search",
        "measure_resolution",
        "plan_scale",
    }
    assert named == {path.stem for path in STAGES.glob("*.py")}
    assert all(script(stage).stem == name_of(stage) for stage in DAG.values())


ONE_OF_EACH = list({(stage.path, name_of(stage)): key for key, stage in DAG.items()}.values())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_code_dependencies_are_the_imports_or_packages_of_them(name):
    paths = [Path(dep.fs_path) for dep in DAG[name].deps if not hasattr(dep, "params")]
    declared = {path for path in paths if STAGES in path.parents}
    used = reached(script(DAG[name]))
    assert {path for path in used if not declared & {path, path.parent}} == set()
    assert declared <= used | {path.parent for path in used}


def test_every_package_has_its_place_and_is_introduced():
    folders = {path.parent.name for path in (STAGES / "rissole").glob("*/*.py")}
    assert folders == set(PACKAGES)
    text = (STAGES / "rissole" / "__init__.py").read_text()
    assert [line.split("`")[1] for line in text.splitlines() if line[:3] == "- `"] == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down(package):
    below = PACKAGES[: PACKAGES.index(package) + 1]
    for path in (STAGES / "rissole" / package).glob("*.py"):
        assert {used.parent.name for used in imports(path)} <= set(below), path


@pytest.mark.parametrize("package", PACKAGES)
def test_within_a_package_imports_do_not_go_round(package):
    modules = {path: imports(path) for path in (STAGES / "rissole" / package).glob("*.py")}
    graph = {path: {used for used in of if used in modules} for path, of in modules.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_what_introduces_a_package_holds_no_code():
    for path in (STAGES / "rissole").glob("*/__init__.py"):
        (only,) = ast.parse(path.read_text()).body
        assert isinstance(only.value, ast.Constant), path


def test_no_stage_imports_another():
    for path in STAGES.glob("*.py"):
        assert all("rissole" in used.parts for used in imports(path)), path.name


def test_every_row_s_loss_curve_is_in_the_common_plot():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    rows = yaml.safe_load((ROOT / "params.yaml").read_text())["variants"]
    assert list(content["plots"][0]["loss"]["y"]) == [f"metrics/loss/{row}.csv" for row in rows]


def test_k_is_read_by_the_neighbour_tables_and_shown_by_the_report():
    readers = {
        name_of(stage)
        for stage in DAG.values()
        if any("k" in getattr(dep, "params", []) for dep in stage.deps)
    }
    assert readers == {"retrieve_neighbours", "make_report"}


def test_the_top_level_is_what_the_readme_shows():
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    visible -= {"dvc_plots", "checkpoints"}  # made by DVC and by trainings, ignored by git
    folders = {"stages", "data", "metrics", "tests"}
    files = {"params.yaml", "dvc.yaml", "dvc.lock", "requirements.txt", "constraints.txt"}
    assert visible <= folders | files | {"README.md", "LICENSE"}


def test_the_ablations_stages_are_those_of_the_main_pipeline():
    main = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    files = sorted((ROOT / "stages/ablations").glob("*/dvc.yaml"))
    ablations = {path.parent.name: yaml.safe_load(path.read_text())["stages"] for path in files}
    assert "compute_fid" in ablations
    for name, stages in ablations.items():
        ours, theirs = stages.pop(name)["do"], main[name]["do"]
        assert not stages
        assert [dep.replace("ablations/", "") for dep in ours["deps"]] == theirs["deps"], name
        shared = [key for key in ours["params"] if isinstance(key, str)]
        assert shared == [key for key in theirs["params"] if "{key}" not in key], name


def test_a_bare_repro_does_not_depend_on_the_ablations():
    for name, stage in DAG.items():
        if not name.startswith(("stages/ablations", "metrics/published")):
            assert not any("ablations" in dep.def_path for dep in stage.deps), name
