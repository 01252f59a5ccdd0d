"""Put the ablations side by side, equal rows with other seeds as mean and spread.

Reads the metrics of all rows, those of the main pipeline among them. Writes
metrics/ablations/tables.json and metrics/ablations/tables.md, and prints the latter.
"""

from pathlib import Path

from rissole import claims, config, files, runtime, tables

METRICS = Path("metrics")
HOW_TO_READ = (
    "Mean and standard deviation over the seeds; never the best of them. The rows of a table differ"
    " from `rissole` in the one thing that they are named for. With four blocks per side the inside"
    " of a block is so small that held-out images equal train images there as well: `copied` names"
    " all of them, and leaves no `uncopied` score."
)


def main() -> None:
    """Make the tables."""
    settings = config.read()
    names = dict.fromkeys(name for rows in settings.ablations.tables.values() for name in rows)
    rows, repeats = {name: settings.row(name) for name in names}, settings.repeats(names)
    results = tables.read(rows, files.read_json(METRICS / "reference.json"), controls={})
    table = tables.numbers(results)
    asserted = claims.read(METRICS / "ablations/claims.yaml")
    parts = ["# Ablations", HOW_TO_READ]
    for title, members in settings.ablations.tables.items():
        parts += [f"## {title}", tables.ablation_table(members, table, repeats)]
    parts += ["## What the numbers say", tables.claims_table(table, asserted, repeats)]
    parts += [tables.SPREAD]
    page = "\n\n".join(parts) + "\n"

    folder = METRICS / "ablations"
    files.write_json(folder / "tables.json", table)
    with files.replacing(folder / "tables.md") as scratch:
        scratch.write_text(page, "utf-8")
    print(page)
    print(f"make_ablation_tables: {len(names)} rows -> {folder}/tables.md")


if __name__ == "__main__":
    runtime.run(main)
