"""Join what the stages measured into one table.

Reads the metrics of every row and those that belong to none. Writes metrics/tables.json for
`dvc metrics diff` and metrics/tables.md for people, and prints the table.
"""

from pathlib import Path

from rissole import config, files, runtime, tables
from rissole.errors import InputError

METRICS = Path("metrics")


def main() -> None:
    """Make the tables."""
    rows = config.read().variants
    fid = {row: read(f"fid/{row}", f"compute_fid@{row}") for row in rows}
    ldm = {row: read(f"ldm/{row}", f"train_ldm@{row}") for row in rows}
    table = tables.numbers(fid, ldm, read("reference", "extract_features"))
    measured = {
        "vqgan": read("vqgan", "extract_features"),
        "retrieval": read("retrieval", "build_index"),
    }

    files.write_json(METRICS / "tables.json", table)
    with files.replacing(METRICS / "tables.md") as scratch:
        scratch.write_text(tables.markdown(table, measured), "utf-8")
    print(tables.score_table(table), tables.verdict(table), sep="\n\n")
    print(
        f"\nmake_tables: {len(rows)} rows -> {METRICS / 'tables.md'};"
        f" the pictures are {METRICS / 'grids'}/*.png"
    )


def read(name: str, stage: str) -> dict:
    """The content of a metrics file. Raises InputError with the command that makes it."""
    path = METRICS / f"{name}.json"
    if not path.exists():
        raise InputError(f"{path} does not exist; `dvc repro {stage}` makes it")
    return files.read_json(path)


if __name__ == "__main__":
    runtime.run(main)
