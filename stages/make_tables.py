"""Join what the stages measured into tables, and check what the project asserts.

Reads the metrics of every row, those of the controls and those that belong to none, and the claims.
Writes metrics/tables.json for `dvc metrics diff` and metrics/tables.md for people, and prints the
scores.
"""

from pathlib import Path

from rissole import claims, config, files, runtime, tables

METRICS = Path("metrics")


def main() -> None:
    """Make the tables."""
    settings = config.read()
    rows = settings.rows
    controls = files.read_json(METRICS / "controls.json")
    results = tables.read(rows, files.read_json(METRICS / "reference.json"), controls)
    before = {
        "vqgan": files.read_json(METRICS / "vqgan.json"),
        "retrieval": files.read_json(METRICS / "retrieval.json"),
        "neighbours": {
            table: files.read_json(files.measured("neighbours", table))
            for table in settings.retrievals
        },
    }
    table = tables.numbers(results)
    asserted, repeats = claims.read(METRICS / "claims.yaml"), settings.repeats(rows)

    files.write_json(METRICS / "tables.json", table)
    with files.replacing(METRICS / "tables.md") as scratch:
        scratch.write_text(tables.markdown(results, table, asserted, repeats, before), "utf-8")
    print(tables.score_table(results))
    print(tables.claims_table(table, asserted, repeats))
    print(
        f"\nmake_tables: {len(rows)} rows -> {METRICS / 'tables.md'};"
        f" the pictures are {METRICS / 'grids'}/*.png and {METRICS / 'provenance'}/*.png"
    )


if __name__ == "__main__":
    runtime.run(main)
