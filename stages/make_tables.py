"""Put the scores and audits of all rows into tables.

Reads the metrics of every stage. Writes metrics/tables.md, with all figures, metrics/retrieval.md,
about what was retrieved, and metrics/tables.json, with the headline numbers; prints the table of
scores.

    dvc repro make_tables
    python stages/make_tables.py
"""

from pathlib import Path

from rissole.core import config, files
from rissole.drawing.settings import find_row
from rissole.harness.run import run
from rissole.results import measurements, pages, retrieval_page, tables

METRICS = Path("metrics")


def main() -> None:
    """Make the tables."""
    settings = config.read()
    rows = {name: find_row(settings, name) for name in settings.names("rows")}
    results = measurements.read(METRICS, rows, files.read_json(METRICS / "controls.json"))
    before = measurements.read_before(METRICS, rows)
    retrieved = files.read_json(METRICS / "retrieval_quality.json")

    files.write_json(METRICS / "tables.json", measurements.numbers(results))
    files.write_text(METRICS / "tables.md", pages.scores_page(results, before))
    files.write_text(METRICS / "retrieval.md", retrieval_page.page(retrieved, results))
    print(tables.score_table(results))
    print(
        f"\nmake_tables: {len(rows)} rows -> {METRICS / 'tables.md'};"
        f" the pictures are {METRICS / 'grids'}/*.png and {METRICS / 'provenance'}/*.png"
    )


if __name__ == "__main__":
    run(main)
