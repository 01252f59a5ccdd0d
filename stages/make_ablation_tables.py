"""Put the ablations side by side, equal rows with other seeds as mean and spread.

Reads the metrics of all rows, those of the main pipeline among them. Writes
metrics/ablations/tables.json and metrics/ablations/tables.md, and prints the latter.

    dvc repro stages/ablations/dvc.yaml
    python stages/make_ablation_tables.py
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.results import claims, measurements, pages

METRICS = Path("metrics")


def main() -> None:
    """Make the tables."""
    settings = config.read()
    members = settings.ablations.tables
    rows = {name: settings.row(name) for names in members.values() for name in names}
    results = measurements.read(rows, files.read_json(METRICS / "reference.json"), controls={})
    folder = METRICS / "ablations"
    page = pages.ablations_page(
        results,
        members,
        claims.read(folder / "claims.yaml"),
        settings.repeats(rows),
        settings.redraws(rows),
        measurements.read_neighbours(rows),
        {name: settings.variant(of.variant) for name, of in rows.items()},
    )

    files.write_json(folder / "tables.json", measurements.numbers(results))
    files.write_text(folder / "tables.md", page)
    print(page)
    print(f"make_ablation_tables: {len(rows)} rows -> {folder}/tables.md")


if __name__ == "__main__":
    runtime.run(main)
