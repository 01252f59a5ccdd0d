"""Score the samples of one row: copies and seams, and distances to true images (section 5.1).

Reads the samples, the latents, the row's neighbour table, and the reference. Writes

- the scores under each judge to metrics/fid/<row>.json; they are called `fid` only where Inception
  weights are given. Beside them, for rows that retrieve, whether an image is drawn better whose
  neighbours agree (`agreement`) or are like its query (`similarity`);
- the one score that rows are ranked by, `uncopied`, to metrics/scores/<row>.json, where `dvc exp
  show` and `dvc metrics diff` find it; a row in which copies cannot be named has none;
- every copy test with its null, and seams, to metrics/audit/<row>.json;
- of each image the nearest train image, the nearest train block at each position (that of its
  query aside), whether it is named a copy, and whether the unnamed ones are vouched for, to
  data/audit/<row>.parquet, and the first images beside all that to metrics/provenance/<row>.png.

Fails if images are their own queries more often than chance, and these were among the neighbours
that they were told, unless the row `may_copy`.

    dvc repro compute_fid@rissole
    python stages/compute_fid.py rissole
"""

from pathlib import Path

from rissole.auditing import audit, coherence
from rissole.auditing.audit import Real, Traces
from rissole.auditing.copies import Drawn
from rissole.core import config, files, fingerprint, numerics
from rissole.dataset import images
from rissole.denoiser.settings import Variant, find_variant
from rissole.drawing.settings import Row, find_row
from rissole.harness.errors import InputError
from rissole.harness.run import run
from rissole.judging import features, judges, scores, singles
from rissole.judging.settings import JudgeSettings
from rissole.latent import latents, likeness, originals

import numpy as np
import pyarrow as pa
import torch

DATA, METRICS = Path("data"), Path("metrics")
SHOWN, SHOWN_NEIGHBOURS = 8, 4  # images, and neighbours of each, in the picture


def main(row: str) -> None:
    """Score one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    settings = config.read()
    of, device = find_row(settings, row), numerics.set_up(settings.threads)
    train, val = (latents.read(DATA / "latents", split) for split in ("train", "val"))
    path = DATA / "samples" / row / "samples.parquet"
    table = files.read_table(path)
    latents.check_table(path, table, train)
    said = table.schema.metadata[b"row"].decode()
    fingerprint.check(path, said, row, f"samples of row {said}, not of {row}")
    pictures, drawn = images.read_pictures(path), read_drawn(table, train)
    look = judges.open(settings.section(JudgeSettings), device)
    seen = {name: judge(pictures) for name, judge in look.items()}

    numbers, traces, real = audited(
        of, find_variant(settings, of.variant), settings.blocks, drawn, pictures, train, val
    )
    files.write_json(files.measured(METRICS, "audit", row), files.rounded(numbers))
    columns = columns_of(drawn, traces, real, train)
    files.write_table(DATA / "audit" / f"{row}.parquet", pa.table(columns))
    shown = provenance(table, columns, pictures)
    picture = files.measured(METRICS, "provenance", row, "png")
    images.write_grid(picture, shown, columns=len(shown) // SHOWN)

    keys = {name: judge.key for name, judge in look.items()}
    true = features.read_reference(DATA / "reference", keys, train.identity)
    copied = traces.copied.numpy() if traces.vouched else None
    scored = {"images": len(drawn)}
    for judge, features_of in seen.items():
        scored |= scores.score(judge, features_of, copied, true[judge])
    if "agreement" in columns:
        judge, features_of = next(iter(seen.items()))
        nearness = -singles.distances(features_of, true[judge].val)
        scored |= {
            name: singles.correlation(columns[name].to_numpy(), nearness)
            for name in ("agreement", "similarity")
        }
    files.write_json(files.measured(METRICS, "fid", row), scored)
    first = scores.frechet_keys(scored)[0]
    uncopied = scored[first].get("uncopied")
    ranked = {} if uncopied is None else {row: uncopied}
    files.write_json(files.measured(METRICS, "scores", row), {"uncopied": ranked})
    check_leaks(row, of, numbers, drawn, train)
    rate = numbers["copied"]
    accused = f", accused of {' and '.join(numbers['accused'])}" if numbers["accused"] else ""
    print(
        f"compute_fid {row}: {first} {scored[first]['val']:.1f} against val images"
        f" (floor {scored[first]['floor']:.1f}),"
        f" {f'uncopied {uncopied:.1f}' if ranked else 'no rank, as no image is vouched for'};"
        f" {rate['rate']:.1%} copies by {rate['tests']} of {rate['of']} tests (held-out images:"
        f" {rate['null']:.1%}){accused}"
        f" -> {files.measured(METRICS, 'fid', row)}, {picture}"
    )


def audited(
    of: Row,
    variant: Variant,
    blocks: int,
    drawn: Drawn,
    pictures: np.ndarray,
    train: latents.Latents,
    val: latents.Latents,
) -> tuple[dict, Traces, Real]:
    """All that is looked for in the samples of a row, and what they are held against."""
    context = DATA / of.context if variant.neighbours != "none" else None
    reconstructions = DATA / "reference/reconstructions.parquet"
    kept = files.read_table(reconstructions, ["id"])
    latents.check_table(reconstructions, kept, train)
    rows = val.rows(kept["id"].to_numpy())
    grid = variant.blocks if variant.blocks > 1 else blocks
    real = audit.real_images(train, val, rows, context, grid, blocks)
    numbers, traces = audit.trace(drawn, real)
    numbers["coherence"] = coherence.measure(
        drawn.z,
        pictures,
        real.val.z,
        images.read_pictures(reconstructions),
        coherence.load(DATA / "reference/collages.safetensors", train.identity),
        grid,
        blocks,
    )
    return numbers | {"images": len(drawn), "held_out": len(real.val)}, traces, real


def columns_of(drawn: Drawn, traces: Traces, real: Real, train: latents.Latents) -> dict:
    """What is known of each image, by the name of its column."""
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
    return columns


def check_leaks(row: str, of: Row, numbers: dict, drawn: Drawn, train: latents.Latents) -> None:
    """Fail where a row that may not copy draws the queries that it was told."""
    leaks = "own_query" in numbers["accused"] and tells_queries(drawn, train)
    if leaks and not of.may_copy:
        own, path = numbers["own_query"], files.measured(METRICS, "audit", row)
        raise InputError(
            f"{path}: {own['rate']:.1%} of the images of {row} are nearest"
            f" to their own query image, of held-out images {own['null']:.1%}: the query leaks into"
            f" the neighbours; mend retrievals ('exclude'), or declare 'may_copy: true' in the row"
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


def provenance(table: pa.Table, columns: dict, pictures: np.ndarray) -> np.ndarray:
    """A line per image: itself | query | neighbours | nearest | mosaic of the nearest blocks."""
    lines = []
    for number in range(min(SHOWN, len(pictures))):
        told = [table["query"][number].as_py(), *(table["neighbours"][number].as_py() or [])]
        ids = [columns["nearest"][number].as_py(), *columns["nearest_by_block"][number].as_py()]
        told = [] if told[0] is None else told[: 1 + SHOWN_NEIGHBOURS]
        lines.append((told, ids))
    wanted = {number for line in lines for part in line for number in part}
    true = originals.read(DATA / "split", DATA / "latents", wanted)
    shown = []
    for picture, (told, (nearest, *by_block)) in zip(pictures, lines, strict=False):
        beside = [true[number].pixels for number in (*told, nearest)]
        shown += [picture, *beside, originals.mosaic([true[number] for number in by_block])]
    return np.stack(shown)


if __name__ == "__main__":
    run(main)
