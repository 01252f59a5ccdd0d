"""Put the published results of a run into tables, and check the claims against them.

Reads metrics/published/<name>/results.json, which `publish_results` wrote, and the claims. Writes
tables.md beside it.

    dvc repro metrics/published/dvc.yaml
    python stages/make_published_tables.py ablations
"""

from pathlib import Path

from rissole.core import files
from rissole.harness.run import run
from rissole.results import claims, publication

METRICS = Path("metrics")


def main(name: str) -> None:
    """Make the tables of one publication.

    Args:
        name: of a folder of metrics/published.
    """
    folder, asserted = METRICS / "published" / name, claims.read(METRICS / "claims.yaml")
    content = files.read_json(folder / "results.json")
    files.write_text(folder / "tables.md", publication.page(name, content, asserted))
    print(f"make_published_tables: {len(content['rows'])} rows -> {folder}/tables.md")


if __name__ == "__main__":
    run(main)
