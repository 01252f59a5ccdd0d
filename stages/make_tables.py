"""Put the scores and audits of all rows into tables, and check the claims against them.

Reads the metrics of every stage and metrics/claims.yaml. Writes metrics/tables.md, with all
figures, metrics/retrieval.md, about what was retrieved, and metrics/tables.json, with the headline
numbers; prints the table of scores.

    dvc repro make_tables
    python stages/make_tables.py
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.results import claims, measurements, pages, retrieval_page, tables

METRICS = Path("metrics")


def main() -> None:
    """Make the tables."""
    settings = config.read()
    rows = settings.rows
    controls = files.read_json(METRICS / "controls.json")
    results = measurements.read(rows, files.read_json(METRICS / "reference.json"), controls)
    before = measurements.read_before(rows)
    retrieved = files.read_json(METRICS / "retrieval_quality.json")
    asserted, repeats = claims.read(METRICS / "claims.yaml"), settings.repeats(rows)
    table = measurements.numbers(results)

    files.write_json(METRICS / "tables.json", table)
    page = pages.scores_page(results, asserted, repeats, before)
    files.write_text(METRICS / "tables.md", page)
    files.write_text(METRICS / "retrieval.md", retrieval_page.page(retrieved, results))
    print(tables.score_table(results))
    print(tables.claims_table(table, asserted, repeats))
    print(
        f"\nmake_tables: {len(rows)} rows -> {METRICS / 'tables.md'};"
        f" the pictures are {METRICS / 'grids'}/*.png and {METRICS / 'provenance'}/*.png"
    )


if __name__ == "__main__":
    runtime.run(main)
