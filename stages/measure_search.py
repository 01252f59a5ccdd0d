"""Measure the kinds of index side by side: exact search, ScaNN's, and FAISS's where installed.

Not a stage: `python stages/measure_search.py latents --name avatars` takes the whole latents of
data/latents, with val images as probes; `python stages/measure_search.py 100000` as many made-up
clustered rows. Prints a table and keeps it in metrics/search.json, beside those of other names,
with the machine. An index is built twice, to see whether it comes out alike, below a million rows.

    python stages/measure_search.py 100000
    python stages/measure_search.py latents --name photos64
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.ground.errors import InputError
from rissole.latent import latents
from rissole.results import tables
from rissole.retrieval import index, with_faiss, with_scann
from rissole.retrieval.vectors import Vectors
from rissole.speed import data, searching
from rissole.speed.machine import describe

import numpy as np
import pandas as pd
import torch

CPU = torch.device("cpu")
SEARCH, LATENTS = Path("metrics/search.json"), Path("data/latents")
TWICE_BELOW = 1_000_000  # rows


def main(what: str, name: str | None = None) -> None:
    """Measure every kind that can be had, on the CPU.

    Args:
        what: `latents`, or a number of rows to make up.
        name: to keep the figures by.
    """
    settings = config.read()
    runtime.set_up(settings.threads)
    if what == "latents":
        train, val = (
            Vectors(latents.read(LATENTS, split), "latent", settings.blocks)[:]
            for split in ("train", "val")
        )
        probes = val[: data.PROBES]
    elif what.isdecimal():
        train = np.concatenate(list(data.clustered(int(what))))
        probes = data.probes(len(train))
    else:
        raise InputError(f"'{what}': must be 'latents' or a number of rows, such as 100000")
    libraries = [library for library in (with_scann, with_faiss) if library.installed()]
    kinds = ["exact", *(kind for kind, of in index.LIBRARIES.items() if of in libraries)]
    found = {}
    for kind in kinds:
        twice = len(train) < TWICE_BELOW
        found[kind] = searching.measure(train, probes, settings.index, kind, twice)
        print(f"measure_search: {kind} {found[kind]}")
    known = files.read_json(SEARCH) if SEARCH.exists() else {}
    known[name or what] = {
        "rows": len(train),
        "width": train.shape[1],
        "machine": describe(CPU) | {"threads": settings.threads},
        "kinds": files.rounded(found),
    }
    files.write_json(SEARCH, known)
    lines = pd.DataFrame.from_dict(found, orient="index").reset_index(names="kind")
    print(tables.markdown(lines.astype(str), 1))
    print(f"measure_search: {len(train):,} rows of width {train.shape[1]} -> {SEARCH}")


if __name__ == "__main__":
    runtime.run(main)
