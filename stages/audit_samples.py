"""Look for copies and seams in the samples of one row, and show where they come from.

Reads the samples, the latents, the row's neighbour table and denoiser, and the reference. Writes
every test with its null to metrics/audit/<row>.json; of each image the nearest train image, the
nearest train block at each position (that of its query aside), whether it is named a copy, and
whether the unnamed ones are vouched for, to data/audit/<row>.parquet; and a picture of the first
images beside all that to metrics/provenance/<row>.png. Fails if images are their own queries more
often than chance, and these were among the neighbours that they were told, unless the row
`may_copy`.

    dvc repro audit_samples@rissole
    python stages/audit_samples.py rissole
"""

from pathlib import Path

from rissole.auditing import audit, coherence, sensitivity
from rissole.auditing.copies import Drawn
from rissole.dataset import images
from rissole.denoiser import conditioning, denoiser
from rissole.ground import config, files, identity, runtime
from rissole.ground.errors import InputError
from rissole.judging import features
from rissole.latent import latents, likeness, originals
from rissole.latent.latents import read_neighbours

import numpy as np
import pyarrow as pa
import torch

LATENTS, REFERENCE = Path("data/latents"), Path("data/reference")
SHOWN, SHOWN_NEIGHBOURS = 8, 4  # images, and neighbours of each, in the picture


def main(row: str) -> None:
    """Audit one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read()
    of, device = settings.row(row), runtime.set_up(settings.threads)
    train, val = (latents.read(LATENTS, split) for split in ("train", "val"))
    weights = Path(f"data/ldm/{of.variant}/best.safetensors")
    network = denoiser.load(weights, train).to(device)
    context = Path("data") / of.context if network.row.neighbours != "none" else None
    samples, reconstructions = (
        Path(f"data/samples/{row}/samples.parquet"),
        REFERENCE / "reconstructions.parquet",
    )
    table = files.read_table(samples)
    latents.check_table(samples, table, train)
    said = table.schema.metadata[b"row"].decode()
    identity.check(samples, said, row, f"samples of row {said}, not of {row}")
    pictures, drawn = images.read_pictures(samples), read_drawn(table, train)

    kept = files.read_table(reconstructions, ["id"])
    latents.check_table(reconstructions, kept, train)
    held_out = kept["id"].to_numpy()
    grid = network.row.blocks if network.row.blocks > 1 else settings.blocks
    real = audit.real_images(train, val, val.rows(held_out), context, grid, settings.blocks)
    numbers, traces = audit.trace(drawn, real)
    numbers["coherence"] = coherence.measure(
        drawn.z,
        pictures,
        real.val.z,
        images.read_pictures(reconstructions),
        coherence.load(REFERENCE / "collages.safetensors", train.identity),
        grid,
        settings.blocks,
    )
    if context is not None:
        _, neighbours = read_neighbours(context / "queries.parquet", train)
        database = conditioning.database(network.row, of.context, train).to(device)
        numbers["sensitivity"] = sensitivity.measure(
            network, database, neighbours[: len(drawn)].to(device)
        )
    numbers |= {"images": len(drawn), "held_out": len(real.val)}

    files.write_json(files.measured("audit", row), files.rounded(numbers))
    whole, by_block = traces.whole, traces.by_block
    columns = {
        "copied": pa.array(traces.copied.numpy()),
        "vouched": pa.array([traces.vouched] * len(drawn)),
        "nearest": pa.array(train.ids[whole.rows[:, 0].numpy()]),
        "distance": pa.array(whole.distances[:, 0].numpy()),
        "nearest_by_block": files.lists_column(
            train.ids[torch.stack([found.rows[:, 0] for found in by_block], 1).numpy()]
        ),
        "distance_by_block": files.lists_column(
            torch.stack([found.distances[:, 0] for found in by_block], 1).numpy()
        ),
    }
    if drawn.neighbours is not None and drawn.neighbours.shape[1] > 1:
        columns |= neighbours_of(drawn, real.train.z)
    path = Path(f"data/audit/{row}.parquet")
    about = {"images": features.digest(pictures)}
    files.write_table(path, pa.table(columns, metadata=about))
    shown = show(table, columns, pictures)
    images.write_grid(files.measured("provenance", row, "png"), shown, columns=len(shown) // SHOWN)
    leaks = "own_query" in numbers["accused"] and tells_queries(drawn, train)
    if leaks and not of.may_copy:
        own = numbers["own_query"]
        raise InputError(
            f"{files.measured('audit', row)}: {own['rate']:.1%} of the images of {row} are nearest"
            f" to their own query image, of held-out images {own['null']:.1%}: the query leaks into"
            f" the neighbours; mend retrievals ('exclude'), or declare 'may_copy: true' in the row"
        )
    copied = numbers["copied"]
    accused = f", accused of {' and '.join(numbers['accused'])}" if numbers["accused"] else ""
    print(
        f"audit_samples {row}: {copied['rate']:.1%} copies by {copied['tests']} of {copied['of']}"
        f" tests (held-out images: {copied['null']:.1%}){accused}"
        f" -> {files.measured('audit', row)}, {files.measured('provenance', row, 'png')}"
    )


def read_drawn(table: pa.Table, train: latents.Latents) -> Drawn:
    """The samples as latents and codes, with rows of queries and neighbours where there are any."""
    side = train.codes.shape[1:]
    codes = torch.from_numpy(files.bytes_array(table["codes"], np.uint16, side).astype(np.int32))
    z = torch.nn.functional.embedding(codes, train.table(normalise=True)).movedim(-1, 1)
    if table["query"].null_count:
        return Drawn(z.contiguous(), codes)
    query = train.rows(table["query"].to_numpy())
    neighbours = train.rows(files.lists_array(table["neighbours"]))
    return Drawn(z.contiguous(), codes, torch.from_numpy(neighbours), torch.from_numpy(query))


def tells_queries(drawn: Drawn, train: latents.Latents) -> bool:
    """Whether any image was told its own query, or that one's mirror, as a neighbour."""
    query, neighbours = (train.originals[of.numpy()] for of in (drawn.query, drawn.neighbours))
    return bool((neighbours == query[:, None]).any())


def neighbours_of(drawn: Drawn, z: torch.Tensor) -> dict[str, pa.Array]:
    """How alike the neighbours of each sample are, and how like its query, as columns."""
    parts = zip(drawn.neighbours.split(256), drawn.query.split(256), strict=True)
    alike = [
        (likeness.agreement(z[near]), likeness.similarity(z[query], z[near]).mean(1))
        for near, query in parts
    ]
    agreement, similarity = (torch.cat(of).numpy() for of in zip(*alike, strict=True))
    return {"agreement": pa.array(agreement), "similarity": pa.array(similarity)}


def show(table: pa.Table, columns: dict, pictures: np.ndarray) -> np.ndarray:
    """A line per image: itself | query | neighbours | nearest | mosaic of the nearest blocks."""
    lines = []
    for number in range(min(SHOWN, len(pictures))):
        told = [table["query"][number].as_py(), *(table["neighbours"][number].as_py() or [])]
        ids = [columns["nearest"][number].as_py(), *columns["nearest_by_block"][number].as_py()]
        told = [] if told[0] is None else told[: 1 + SHOWN_NEIGHBOURS]
        lines.append((told, ids))
    wanted = {number for line in lines for part in line for number in part}
    true = originals.read(Path("data/split"), LATENTS, wanted)
    shown = []
    for picture, (told, (nearest, *by_block)) in zip(pictures, lines, strict=False):
        beside = [true[number].pixels for number in (*told, nearest)]
        shown += [picture, *beside, originals.mosaic([true[number] for number in by_block])]
    return np.stack(shown)


if __name__ == "__main__":
    runtime.run(main)
