"""The page that a run ends with: what is in it, what it weighs, and that a browser shows it."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from rissole.core import config
from rissole.dataset import images, prepare
from rissole.dataset.prepare import Picture
from rissole.dataset.sources import Record
from rissole.latent import latents, originals
from rissole.latent.originals import Original
from rissole.report import figures, gallery, pipeline, scores, shown, webp
from rissole.report.shown import Shown
from tiny import ROOT, ROWS, run
from toy import CODEBOOK

import networkx
import numpy as np
import pytest
import torch
import yaml
from dvc.repo import Repo
from PIL import Image

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="the report is not looked at: no Chromium (apt-get install chromium)"
)
EVIL = "<img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """All elements of a page, and the texts of some."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data):
        if self.found:
            self.texts[self.found[-1][0]][-1] += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def project(clone, tmp_path_factory):
    """A copy of the tiny project after its run, without DVC and git."""
    folder = tmp_path_factory.mktemp("report") / "project"
    return shutil.copytree(clone[0], folder, ignore=shutil.ignore_patterns(".dvc", ".git"))


@pytest.fixture(scope="module")
def written(project):
    return (project / "metrics/report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def elements(written):
    return Elements(written)


def told(page: str) -> dict:
    """What the page's script is told."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*)</script>', page)[1]
    )


def make(folder: Path, *words: str) -> str:
    return run(folder, sys.executable, *words)


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(written, elements):
    assert 10_000 < len(written.encode()) < 5_000_000
    sources = [of["src"] for _, of in elements.found if "src" in of]
    assert sources and all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not elements.of("link")
    assert not re.search(r"url\(\s*['\"]?https?:|@import", written)
    (policy,) = [of["content"] for of in elements.of("meta") if "http-equiv" in of]
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.slow
def test_every_row_and_shown_sample_is_in_it(elements, written):
    alts = {of.get("alt") for of in elements.of("img")}
    assert {f"{row}, image {n}" for row in ROWS for n in range(12)} <= {
        alt.removesuffix(", named a copy") for alt in alts
    }
    assert {row["name"]: len(row["samples"]) for row in told(written)["rows"]} == dict.fromkeys(
        ROWS, 12
    )


@pytest.mark.slow
def test_every_picture_and_plot_says_what_it_shows(elements):
    assert all(of.get("alt") for of in elements.of("img"))
    plots = [of for of in elements.of("div") if of.get("role") == "img"]
    assert len(plots) == len(elements.of("svg")) - 1  # but the arcs, beside a list that says all
    assert all(len(of["aria-label"]) > 20 for of in plots)


@pytest.mark.slow
def test_the_scores_are_those_of_the_tables_by_rank(project, written):
    numbers = json.loads((project / "metrics/tables.json").read_text())
    lines = re.findall(r"<tr[^>]*><td>.*?</tr>", written)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in lines]
    cells = [[cell.replace("\N{MINUS SIGN}", "-") for cell in line] for line in cells]
    assert {line[1] for line in cells} == set(numbers)
    for _, name, uncopied, first, second, against, recall, copied, *_ in cells:
        of = numbers[name]
        keys = [key for key in of if key.startswith("fd_")]
        assert uncopied == (f"{of['uncopied']:.1f}" if "uncopied" in of else "–")
        shown_distances = [f"{of[key]:.1f}" for key in keys]
        assert [first, second] == (shown_distances + ["–"])[:2]  # controls have one judge
        assert against == f"{of['against_reconstructions']:.1f}"
        assert (recall, copied) == (f"{of['recall']:.2f}", f"{100 * of['copied']:.1f} %")
    ranks = [numbers[line[1]].get("uncopied", np.inf) for line in cells]
    assert ranks == sorted(ranks)


@pytest.mark.slow
def test_a_sample_is_told_as_the_trace_tells_it(clone, written):
    said = make(clone[0], "stages/trace_sample.py", "released", "5")
    content = told(written)
    (row,) = [of for of in content["rows"] if of["name"] == "released"]
    sample, ids = row["samples"][5], [of["id"] for of in content["train"]]
    traced = re.findall(r"neighbour +\d+: .+ \(train image (-?\d+)\), cosine ([\d.]+)", said)
    assert [ids[place] for place, _ in sample["neighbours"]] == [number for number, _ in traced]
    shown_cosines = [float(cosine) for _, cosine in sample["neighbours"]]
    assert shown_cosines == pytest.approx([float(cosine) for _, cosine in traced], abs=6e-4)
    assert ids[sample["query"]] == re.search(r"query +.+ \(train image (-?\d+)\)", said)[1]
    nearest = re.search(r"nearest +.+ \(train image (-?\d+)\), distance ([\d.]+)", said)
    assert ids[sample["nearest"][0]] == nearest[1]
    assert float(sample["nearest"][1]) == pytest.approx(float(nearest[2]), abs=6e-3)
    blocks = re.findall(r"block \d+ +.+ \(train image (-?\d+)\)", said)
    assert [number for number, _ in sample["blocks"]] == blocks
    assert {"yes": "yes", "no": "no", "unknown": "cannot be said"}[sample["copied"]] in said


@pytest.mark.slow
def test_it_is_written_again_byte_for_byte_whatever_its_own_time_was(project, written):
    folder = project / "checkpoints/seconds"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "make_report.py.json").write_text('{"seconds": 12345.0}')
    make(project, "stages/make_report.py")
    again = (project / "metrics/report.html").read_text("utf-8")
    # beside git the revision is told, which this copy has not got
    assert again == re.sub(r"(<dt>revision</dt><dd>)[^<]*", r"\1not under git", written)


@pytest.mark.slow
def test_names_are_shown_as_they_are(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "renamed")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["rows"][EVIL] = params["rows"].pop("released")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    measured = [f"metrics/{kind}/{{}}.json" for kind in ("fid", "audit", "sampling")]
    for name in ("data/samples/{}", "data/audit/{}.parquet", *measured):
        (folder / name.format("released")).rename(folder / name.format(EVIL))
    tables = json.loads((folder / "metrics/tables.json").read_text())
    tables[EVIL] = tables.pop("released")
    (folder / "metrics/tables.json").write_text(json.dumps(tables))
    make(folder, "stages/make_report.py")
    page = (folder / "metrics/report.html").read_text("utf-8")
    assert EVIL not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert EVIL in {row["name"] for row in told(page)["rows"]}


@pytest.mark.slow
def test_the_denoising_ends_in_the_sample_and_begins_far_from_it(project):
    data, samples = project / "data", project / "data/samples/no_rag"
    of = shown.read(samples, data / "audit/no_rag.parquet", data / "latents", 2)
    assert of.steps == [1, 2]
    assert of.moments.shape == (12, 2, 32, 32, 3)
    stored = images.read_pictures(samples / "samples.parquet")
    assert np.array_equal(of.pictures, stored)
    assert np.abs(of.moments[:, 0].astype(int) - stored).mean() > 1


# Weight


def noise(count: int, side: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))


@pytest.mark.parametrize("side", [32, 64, 224])
def test_pictures_are_as_good_as_the_budget_allows(side):
    pictures = noise(40, side)
    small, large = (webp.fit(pictures, budget) for budget in (60_000, 400_000))
    assert sum(map(len, small)) <= 60_000 < sum(map(len, large)) <= 400_000


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "side", "blocks"), [(60, 64, 2), (1, 32, 2)])
def test_many_rows_of_large_pictures_stay_within_the_budget(rows, side, blocks):
    """Of true pictures; noise would be worse than any."""
    smooth = [np.asarray(of) for of in photographs(64, side)]
    train = {number: Original(f"{number}.jpg", smooth[number % 64]) for number in range(4000)}
    named = {f"row_{number}": made_up(number, smooth, blocks) for number in range(rows)}
    built = gallery.build(named, train, dict.fromkeys(named, ""), dict.fromkeys(named, 1))
    assert len(json.dumps(built)) < 4_300_000
    assert len(built["rows"]) == rows
    assert all(len(row["samples"]) >= gallery.FEWEST for row in built["rows"])


def photographs(count: int, side: int):
    """Pictures with as much detail as photographs: noise whose spectrum falls with frequency."""
    random = np.random.default_rng(0)
    falls = 1 / np.maximum(np.hypot(*np.meshgrid(*[np.fft.fftfreq(side)] * 2)), 1 / side)
    for _ in range(count):
        waves = np.fft.fft2(random.standard_normal((side, side, 3)), axes=(0, 1))
        field = np.fft.ifft2(waves * falls[..., None], axes=(0, 1)).real
        field = (field - field.min()) / (field.max() - field.min())
        yield Image.fromarray((field * 255).astype(np.uint8))


def made_up(seed: int, pictures: list[np.ndarray], blocks: int) -> Shown:
    random = np.random.default_rng(seed)
    many = np.stack(pictures)[:16]
    samples = [
        {
            "number": number,
            "seed": 0,
            "sampler": "ddim",
            "checkpoint": "0" * 64,
            "query": int(random.integers(4000)),
            "neighbours": random.integers(4000, size=20).tolist(),
            "similarities": [0.5] * 20,
            "retrieved": 20,
            "copied": False,
            "vouched": True,
            "nearest": int(random.integers(4000)),
            "distance": 1.0,
            "nearest_by_block": random.integers(4000, size=blocks**2).tolist(),
            "distance_by_block": [1.0] * blocks**2,
        }
        for number in range(16)
    ]
    return Shown(blocks, list(range(1, 9)), np.stack([many] * 8, 1), samples)


# What it is made of


def test_a_mosaic_has_each_block_at_its_own_place():
    pictures = noise(4, 8)
    mosaic = originals.mosaic([Original("", of) for of in pictures])
    assert np.array_equal(mosaic[:4, :4], pictures[0][:4, :4])
    assert np.array_equal(mosaic[:4, 4:], pictures[1][:4, 4:])
    assert np.array_equal(mosaic[4:, :4], pictures[2][4:, :4])
    assert np.array_equal(mosaic[4:, 4:], pictures[3][4:, 4:])


def test_a_mirrored_train_image_is_shown_mirrored(tmp_path):
    pixels = noise(1, 8)[0]
    record = Record("a.png", None, None, bytes)
    prepare.write_splits(tmp_path / "split", [("train", record, Picture(7, 7, pixels))], 8, 4)
    codes = torch.zeros(2, 4, 4, dtype=torch.int32)
    ids, of = np.array([7, 9]), np.array([7, 7])
    groups = np.array([None, None], dtype=object)
    latents.write_part(tmp_path / "latents/train-00000.parquet", ids, of, groups, codes)
    latents.merge(tmp_path / "latents", {"train": ["train-00000"]}, CODEBOOK)
    found = originals.read(tmp_path / "split", tmp_path / "latents", {7, 9})
    assert np.array_equal(found[7].pixels, pixels)
    assert np.array_equal(found[9].pixels, pixels[:, ::-1])
    assert found[9].name.endswith("mirrored")


@pytest.mark.parametrize(("found", "n"), [(0, 500), (3, 40), (250, 500), (500, 500)])
def test_an_interval_ends_where_the_share_found_is_just_likely_enough(found, n):
    rate, ends = found / n, scores.wilson(found / n, n)
    assert ends == tuple(sorted(ends))
    for end in ends:
        assert (rate - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / n, abs=1e-12)


def test_a_figure_is_the_same_each_time_and_has_only_the_page_s_colours():
    lines = [figures.Dot("a$b$<c>", True, 0.5, (0.4, 0.6), 0.1), figures.Dot("d", False, None)]
    one, other = (figures.dots("name", lines, {"floor": 0.2}) for _ in range(2))
    assert one == other
    assert "a$b$&lt;c&gt;" in one
    assert set(re.findall(r"#[0-9a-f]{6}\b", one)) == set()
    assert "var(--accent)" in one and "var(--ink)" in one


@pytest.mark.slow
def test_the_arcs_are_those_of_dvc():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = pipeline.read(ROOT / "dvc.yaml", params, but="")
    ours = {(stage.name, other) for stage in stages for other in stage.after}
    with Repo(ROOT) as repo:
        graph = networkx.DiGraph()
        for stage, other in repo.index.graph.edges:
            if stage.path_in_repo == other.path_in_repo == "dvc.yaml":
                graph.add_edge(*(of.name.partition("@")[0] for of in (stage, other)))
    assert ours == set(networkx.transitive_reduction(graph).edges)
    assert len(ours) > 15


def test_times_of_a_stage_s_runs_are_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SECONDS", tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        yaml.safe_dump(
            {
                "stages": {
                    "one": {"cmd": "python stages/one.py", "outs": ["a"]},
                    "each": {
                        "foreach": "${rows}",
                        "do": {"cmd": "python stages/each.py ${key}", "deps": ["a/${item.of}"]},
                    },
                }
            },
            sort_keys=False,
        )
    )
    for said, seconds in (("each.py x", 2.5), ("each.py y/z", 4)):
        (tmp_path / f"{quote(said, safe=' ')}.json").write_text(json.dumps({"seconds": seconds}))
    rows = {"x": {"of": "b"}, "y/z": {"of": "c"}, "new": {"of": "d"}}
    one, each = pipeline.read(tmp_path / "dvc.yaml", {"rows": rows}, but="")
    assert (one.timed, one.after) == (0, [])
    assert (each.runs, each.timed, each.seconds, each.after) == (3, 2, 6.5, ["one"])


# In a browser


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


@pytest.fixture
def look(chromium):
    """Opens a file as a double click does, without any network; fails on whatever goes wrong."""
    wrong, contexts = [], []

    def open_it(path: Path, **how):
        context = chromium.new_context(offline=True, reduced_motion="reduce", **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                request.url.split(":")[0] in ("file", "data") or wrong.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def report(project):
    return project / "metrics/report.html"


@needs_browser
@pytest.mark.slow
def test_a_chosen_sample_shows_its_origins(look, report, written):
    page = look(report)
    page.get_by_role("button", name="released, image 3").click()
    dialog = page.get_by_role("dialog", name="released, image 3")
    assert dialog.is_visible()
    (row,) = [of for of in told(written)["rows"] if of["name"] == "released"]
    sample = row["samples"][3]
    assert dialog.locator("#detail-neighbours li").count() == len(sample["neighbours"])
    assert sample["neighbours"][0][1] in dialog.locator("#detail-neighbours li").first.inner_text()
    assert f"distance {sample['nearest'][1]}" in dialog.inner_text()
    assert dialog.locator("#detail-path img").count() == len(row["steps"])
    for title in ("Drawn", "Nearest training image", "Nearest blocks", "Query"):
        assert dialog.get_by_text(title, exact=True).is_visible()
    broken = "[...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(broken) == 0


def test_rows_whose_blocks_wait_for_each_other_are_drawn_in_turns():
    settings = config.read(ROOT / "params.yaml")
    found = {row: gallery.turns(settings, row) for row in ("rissole", "rissole_prev", "whole_rag")}
    assert found == {"rissole": 1, "rissole_prev": 4, "whole_rag": 1}


@needs_browser
@pytest.mark.slow
def test_everything_is_reached_by_keyboard(look, report):
    page = look(report)

    def focused() -> str:
        return page.evaluate(
            "(document.activeElement.querySelector('img') ?? document.activeElement).alt ?? ''"
        )

    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the samples"
    page.keyboard.press("Enter")
    first, second = (row["name"] for row in told(report.read_text("utf-8"))["rows"])
    for _ in range(3):
        page.keyboard.press("Tab")
        if focused():
            break
    assert focused().startswith(f"{first}, image 0")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert focused().startswith(f"{first}, image 9")
    page.keyboard.press("ArrowDown")
    assert focused().startswith(f"{second}, image 1")
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").get_by_role("heading", name=f"{second}, image 1").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("dialog").get_by_role("heading", name=f"{second}, image 2").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert focused().startswith(f"{second}, image 2")
    page.keyboard.press("Tab")  # out of the grid: a row is one stop
    assert not focused().startswith(second)


@needs_browser
@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways(look, report):
    page = look(report, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    page.locator(".shots button").first.tap()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360
    assert page.evaluate(width) == 360


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(look, report, scheme):
    page = look(report, color_scheme=scheme)
    read = "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    paper = luminance(page.evaluate(read, "--paper"))
    assert (paper < 0.1) == (scheme == "dark")
    for name in ("--ink", "--quiet", "--accent"):
        ink = luminance(page.evaluate(read, name))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, name  # WCAG 2.2, level AA
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") != ""


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
