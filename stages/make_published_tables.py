"""Put the published results on some images into tables.

Reads metrics/published/<name>/results.json, which `publish_results` wrote, and the claims. Writes
tables.md beside it.

    dvc repro metrics/published/dvc.yaml
    python stages/make_published_tables.py photos64
"""

from pathlib import Path

from rissole.ground import files, runtime
from rissole.results import claims, publication

METRICS = Path("metrics")


def main(name: str) -> None:
    """Make the tables of one publication.

    Args:
        name: of a folder of metrics/published.
    """
    folder = METRICS / "published" / name
    asserted, of_ablations = (
        claims.read(METRICS / family / "claims.yaml") for family in ("", "ablations")
    )
    content = files.read_json(folder / "results.json")
    files.write_text(folder / "tables.md", publication.page(name, content, asserted, of_ablations))
    print(f"make_published_tables: {len(content['rows'])} rows -> {folder}/tables.md")


if __name__ == "__main__":
    runtime.run(main)
