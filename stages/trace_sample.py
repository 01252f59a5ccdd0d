"""Tell where one drawn image comes from, and draw it again, bit by bit.

Not a stage: `python stages/trace_sample.py ROW NUMBER`. Prints seed, query, neighbours with their
similarities, the nearest train image and the nearest train block at each position with distances
(of latents of unit variance), all with the names of their files, checkpoint and sampler; draws the
image anew by these; and fails if it is another, or if what it was drawn with is no longer there.

    python stages/trace_sample.py rissole 7
"""

from pathlib import Path

from rissole.core import config, files, numerics, processes
from rissole.dataset import images
from rissole.drawing import drawing
from rissole.drawing.settings import find_row, row_sample
from rissole.harness.errors import InputError
from rissole.harness.run import address, run
from rissole.latent import originals

import numpy as np

DATA = Path("data")


def main(row: str, number: str) -> None:
    """Trace one image of a row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
        number: of the image, from 0.
    """
    settings = config.read().fitted(images.extent(DATA / "split"))
    path = Path(f"data/samples/{row}/samples.parquet")
    samples = files.read_table(path)
    if not number.isdecimal() or int(number) >= len(samples):
        raise InputError(f"{path}: has no image {number}; name one of 0 to {len(samples) - 1}")
    place = int(number)
    sample = {name: samples[name][place].as_py() for name in samples.column_names}
    audited = files.read_table(Path(f"data/audit/{row}.parquet")).slice(place, 1).to_pylist()[0]
    of, again = find_row(settings, row), address("sample_images", row)

    wanted = {audited["nearest"], *audited["nearest_by_block"]}
    if sample["query"] is not None:
        wanted |= {sample["query"], *sample["neighbours"]}
    train = originals.read(DATA / "split", DATA / "latents", wanted)

    def named(image: int) -> str:
        return f"{train[image].name} (train image {image})"

    print(f"image       {number} of row {row}, seed {sample['seed']}")
    print(f"denoiser    {of.variant}, SHA-256 {sample['checkpoint']}")
    print(f"sampler     {sample['sampler']}, {sample['steps']} steps")
    if sample["query"] is not None:
        table = Path(f"data/{of.context}/queries.parquet")
        print(f"query       {named(sample['query'])}")
        told = files.read_table(table).slice(place, 1).to_pylist()
        found = [(near["id"], near["neighbours"]) for near in told]
        if found != [(sample["query"], sample["neighbours"])]:
            raise InputError(
                f"{path}: drawn with other neighbours than {table} has; run `dvc repro {again}`"
            )
        near = zip(told[0]["neighbours"], told[0]["similarities"], strict=True)
        for rank, (neighbour, cosine) in enumerate(near, 1):
            print(f"neighbour   {rank:2d}: {named(neighbour)}, cosine {cosine:.4f}")
    print(f"nearest     {named(audited['nearest'])}, distance {audited['distance']:.3f}")
    blocks = zip(audited["nearest_by_block"], audited["distance_by_block"], strict=True)
    for position, (nearest, distance) in enumerate(blocks):
        print(f"block {position}     {named(nearest)}, distance {distance:.3f}")
    unnamed = "no" if audited["vouched"] else "cannot be said"
    print(f"copy        {'yes' if audited['copied'] else unnamed}")

    device = numerics.set_up(settings.threads)
    how = row_sample(settings, row).model_copy(
        update={"images": len(samples), **{name: sample[name] for name in ("sampler", "steps")}}
    )
    of = of.model_copy(update={"seed": sample["seed"]})
    drawer = drawing.read(of, how, drawing.Paths.of(of, DATA), device)
    if drawer.checkpoint != sample["checkpoint"]:
        raise InputError(f"{path}: drawn with other weights; run `dvc repro {again}`")
    batch = next(batch for batch in drawer.batches() if place in batch)
    ((_, (redrawn, _)),) = processes.in_turn([batch], drawer.draw)
    redrawn = redrawn[place - batch.start]
    if not np.array_equal(redrawn, images.read_pictures(path)[place]):
        raise InputError(
            f"{path}: image {number} comes out differently here: on another machine, or with other"
            " `threads` or `sample.batch`, last bits differ"
        )
    print("drawn again, equal bit by bit")


if __name__ == "__main__":
    run(main)
