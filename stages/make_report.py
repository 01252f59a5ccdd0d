"""Write the page that shows a run: samples, where each comes from, scores, curves, pipeline.

Reads what is shown of each row, the metrics of all stages, the train images that samples lean on,
dvc.yaml and params.yaml. Writes metrics/report.html: one file that needs no network and no server;
open it in a browser.

    dvc repro make_report
    python stages/make_report.py
"""

from pathlib import Path

from rissole.dataset import images
from rissole.ground import config, files, runtime
from rissole.latent import originals
from rissole.report import curves, gallery, page, pipeline, provenance, scores, shown
from rissole.results import measurements

import yaml

METRICS, SPLIT, LATENTS = Path("metrics"), Path("data/split"), Path("data/latents")
REPORT = METRICS / "report.html"


def main() -> None:
    """Make the report."""
    extent = images.extent(SPLIT)
    settings = config.read().fitted(extent)
    reference, controls, numbers, vqgan = (
        files.read_json(METRICS / f"{name}.json")
        for name in ("reference", "controls", "tables", "vqgan")
    )
    results = measurements.read(settings.rows, reference, controls)
    ranked = [row for row in results.ranked() if row in settings.rows]
    rows = {row: shown.read(Path(f"data/shown/{row}.parquet")) for row in ranked}
    wanted = set().union(*(of.train_ids for of in rows.values()))
    train = originals.read(SPLIT, LATENTS, wanted)
    about = {row: gallery.describe(settings, row) for row in rows}
    turns = {row: gallery.turns(settings, row) for row in rows}
    headings, lines = scores.table(results, numbers)
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    stages = pipeline.read(Path("dvc.yaml"), params, but="make_report")

    html = page.render(
        settings=settings,
        train_images=extent.train,
        gallery=gallery.build(rows, train, about, turns),
        headings=headings,
        lines=lines,
        plots=scores.plots(results),
        losses=curves.losses(list(settings.variants)),
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


if __name__ == "__main__":
    runtime.run(main)
