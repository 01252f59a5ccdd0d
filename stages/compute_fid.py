"""Score the samples of one row against true images (paper, section 5.1).

Reads the features of the samples and of the true images, and which samples the audit named copies.
Writes the scores under each judge to metrics/fid/<row>.json; they are called `fid` only where
Inception weights are given. Beside them, for rows that retrieve, whether an image is drawn better
whose neighbours agree (`agreement`) or are like its query (`similarity`). The one that rows are
ranked by, `uncopied`, stands in metrics/scores/<row>.json, too, where `dvc exp show` and
`dvc metrics diff` find it; a row in which copies cannot be named has none.

    dvc repro compute_fid@rissole
    python stages/compute_fid.py rissole
"""

from pathlib import Path

from rissole.ground import command, config, files, runtime
from rissole.ground.errors import InputError
from rissole.judging import features, scores, singles

REFERENCE = Path("data/reference")


def main(row: str) -> None:
    """Score one row.

    Args:
        row: a row of the table; of the ablations with `ablations/` before it.
    """
    runtime.set_up(config.read().threads)
    path = Path(f"data/features/{row}.parquet")
    seen = features.read(path)
    true = features.read_reference(REFERENCE, seen.judges, seen.latents)
    audited = files.read_table(Path(f"data/audit/{row}.parquet"))
    if audited.schema.metadata[b"images"].decode() != seen.images:
        raise InputError(
            f"data/audit/{row}.parquet: audited other images than those of {path};"
            f" run `dvc repro {command.address('audit_samples', row)}`"
        )
    copied = audited["copied"].to_numpy() if audited["vouched"][0].as_py() else None

    scored = {"images": len(audited)}
    for judge, drawn in seen.by_judge.items():
        scored |= scores.score(judge, drawn, copied, true[judge])
    if "agreement" in audited.column_names:
        judge, drawn = next(iter(seen.by_judge.items()))
        nearness = -singles.distances(drawn, true[judge].val)
        scored |= {
            name: singles.correlation(audited[name].to_numpy(), nearness)
            for name in ("agreement", "similarity")
        }
    path = files.measured("fid", row)
    files.write_json(path, scored)
    first = scores.frechet_keys(scored)[0]
    uncopied = scored[first].get("uncopied")
    ranked = {} if uncopied is None else {row: uncopied}
    files.write_json(files.measured("scores", row), {"uncopied": ranked})
    print(
        f"compute_fid {row}: {first} {scored[first]['val']:.1f} against val images"
        f" (floor {scored[first]['floor']:.1f}),"
        f" {f'uncopied {uncopied:.1f}' if ranked else 'no rank, as no image is vouched for'}"
        f" -> {path}"
    )


if __name__ == "__main__":
    runtime.run(main)
