"""Write the page that shows a run: samples, where each comes from, scores, curves, pipeline.

Reads samples and audit of each row, the metrics of all stages, the train images that samples lean
on, dvc.yaml and params.yaml. Writes metrics/report.html: one file that needs no network and no
server; open it in a browser.

    dvc repro make_report
    python stages/make_report.py
"""

from pathlib import Path

from rissole.core import config, files
from rissole.dataset import images
from rissole.denoiser.settings import find_variant
from rissole.drawing.settings import Row, Sample, find_row
from rissole.harness.run import run
from rissole.latent import originals
from rissole.report import curves, gallery, page, pipeline, provenance, scores, shown
from rissole.results import measurements

import yaml

DATA, METRICS = Path("data"), Path("metrics")
SPLIT, LATENTS = DATA / "split", DATA / "latents"
REPORT = METRICS / "report.html"


def main() -> None:
    """Make the report."""
    extent = images.extent(SPLIT)
    settings = config.read().fitted(extent)
    controls, numbers, vqgan = (
        files.read_json(METRICS / f"{name}.json") for name in ("controls", "tables", "vqgan")
    )
    every = {name: find_row(settings, name) for name in settings.names("rows")}
    results = measurements.read(METRICS, every, controls)
    rows = {row: read(settings, row, every[row]) for row in results.ranked() if row in every}
    wanted = set().union(*(of.train_ids for of in rows.values()))
    train = originals.read(SPLIT, LATENTS, wanted)
    about = {row: gallery.describe(settings, row) for row in rows}
    turns = {row: gallery.turns(settings, row) for row in rows}
    headings, lines = scores.table(results, numbers)
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    stages = pipeline.read(Path("dvc.yaml"), params, but="make_report")

    html = page.render(
        preset=settings.preset,
        size=extent.side,
        sample=settings.section(Sample),
        train_images=extent.train,
        gallery=gallery.build(rows, train, about, turns),
        headings=headings,
        lines=lines,
        plots=scores.plots(results),
        losses=curves.losses(METRICS / "loss", settings.names("variants")),
        vqgan=vqgan,
        codebook=curves.codebook(curves.count_codes(LATENTS)),
        stages=stages,
        settings_text=provenance.settings_text(settings),
        software=provenance.software(),
        card=page.card((SPLIT / "DATA_CARD.md").read_text("utf-8")),
    )
    files.write_text(REPORT, html)
    print(
        f"make_report: {len(rows)} rows -> {REPORT} ({len(html.encode()) / 1e6:.1f} MB);"
        " open it in a browser"
    )


def read(settings: config.Settings, name: str, row: Row) -> shown.Shown:
    """What is shown of a row."""
    return shown.read(
        samples=DATA / "samples" / name,
        audit=DATA / "audit" / f"{name}.parquet",
        table=DATA / row.context,
        drawn_in=find_variant(settings, row.variant).blocks,
    )


if __name__ == "__main__":
    run(main)
