"""The tables of all rows in Markdown."""

from rissole.denoiser.settings import Variant
from rissole.judging import scores
from rissole.results import claims
from rissole.results.claims import Claim
from rissole.results.measurements import Results, gflop
from rissole.results.objections import objections

import numpy as np
import pandas as pd

# Table 1 of the paper: its name of the row, ours, FID on CelebA 64 and on ImageNet100.
PRINTED = (
    ("RDM", "rdm", 32.36, 60.61),
    ("Patch Diffusion", "patch_diffusion", 14.51, None),
    ("RISSOLE - RAG", "no_rag", 23.45, 29.59),
    ("RISSOLE + P", "rissole_prev", 17.01, 20.28),
    ("RISSOLE + Pos", "rissole_pos", 11.61, 14.59),
    ("RISSOLE", "rissole", 9.82, 12.93),
)
MISSING = "-"
TOLD = {  # how neighbours enter
    "none": MISSING,
    "stack": "their blocks, by rank",
    "set": "their blocks, as a set",
    "tokens": "an embedding each",
}


def score_table(results: Results) -> str:
    """The main table as Markdown, a line per row and control, by rank."""
    reference = results.reference
    first, second = scores.frechet_keys(reference)
    kernel = next(name for _, name in scores.KEYS.values() if name in reference)
    short = next(name for name in scores.SHORT.values() if name in reference)
    lines = []
    for row in results.ranked():
        fid, audit = results.measured(row)
        lines.append(
            {
                "row": f"*{row}*" if row in results.controls else row,
                "**uncopied**": tenths(fid[first].get("uncopied")),
                f"{first} above floor": tenths(fid[first]["above_floor"]),
                first: tenths(fid[first]["val"]),
                second: tenths(fid[second]["val"]) if second in fid else MISSING,
                "against reconstructions": tenths(fid[first]["reconstructed"]),
                "kernel": f"{fid[kernel]['val']:.2f} ± {fid[kernel]['interval']:.2f}",
                "precision": f"{fid[short]['precision']:.2f}",
                "recall": f"{fid[short]['recall']:.2f}",
                "coverage": f"{fid[short]['coverage']:.2f}",
                "objections": ", ".join(objections(audit, fid, reference)) or MISSING,
            }
        )
    return markdown(pd.DataFrame(lines), left=1)


def distance_table(results: Results) -> str:
    """All scores under both judges, two lines per row."""
    lines = []
    for row in results.ranked():
        fid, _ = results.measured(row)
        for judge in (judge for judge, (key, _) in scores.KEYS.items() if key in fid):
            of, (mean, interval) = fid[scores.KEYS[judge][0]], fid[scores.KEYS[judge][1]].values()
            found = fid[scores.SHORT[judge]]
            uncopied = [found.get(f"uncopied_{name}") for name in ("precision", "recall")]
            lines.append(
                {
                    "row": f"*{row}*" if row in results.controls else row,
                    "judge": scores.SHORT[judge],
                    "val": tenths(of["val"]),
                    "floor": tenths(of["floor"]),
                    "train": tenths(of["train"]),
                    "reconstructions": tenths(of["reconstructed"]),
                    "infinity": tenths(of["infinity"]),
                    "64 axes": tenths(of.get("pca64")),
                    "kernel": f"{mean:.2f} ± {interval:.2f}",
                    **{
                        name: f"{found[name]:.2f}"
                        for name in ("precision", "recall", "density", "coverage")
                    },
                    "of the uncopied": " / ".join(
                        MISSING if share is None else f"{share:.2f}" for share in uncopied
                    ),
                }
            )
    return markdown(pd.DataFrame(lines), left=2)


def copies_table(results: Results) -> str:
    """How much each row copies, beside held-out images."""
    lines = []
    for row in results.ranked():
        _, audit = results.measured(row)
        told, of = "ranks" in audit, audit["copying_test"]
        moved = results.sampling.get(row, {}).get("sensitivity")
        lines.append(
            {
                "row": f"*{row}*" if row in results.controls else row,
                "copied": _beside(audit["copied"]),
                "tests": f"{audit['copied']['tests']} of {audit['copied']['of']}",
                "own query": _beside(audit.get("own_query")),
                "own group": _beside(audit.get("own_group")),
                "authentic": _beside(audit["authentic"]),
                "C_T": f"{of['c_t']:.1f} ({of['null']:.1f})",
                "block copies": _beside(audit["block_copies"]),
                "inside": _beside(audit["inner_block_copies"]),
                "equal codes": _beside(audit["exact_blocks"]),
                "own neighbours": _beside(audit.get("own_neighbours")),
                "inside them": _beside(audit.get("inner_own_neighbours")),
                "pasted": f"{audit['pasted']['chance']:.2f}" if told else MISSING,
                "sources": f"{audit['sources']['mean']:.1f} ({audit['sources']['null']:.1f})",
                "rank 1": _percent(audit["ranks"][0], audit["ranks_null"][0]) if told else MISSING,
                **{
                    name: f"{moved[name]:.2f}" if moved else MISSING
                    for name in ("swapped", "permuted", "dropped")
                },
            }
        )
    table = pd.DataFrame(lines)
    if (table["own group"] == MISSING).all():  # images without groups
        table = table.drop(columns="own group")
    return markdown(table, left=1)


def coherence_table(results: Results) -> str:
    """Seams and coherence of each row."""
    lines = []
    for row in results.ranked():
        of = results.measured(row)[1]["coherence"]
        lines.append(
            {
                "row": f"*{row}*" if row in results.controls else row,
                "seam": f"{of['ratio']:.2f}",
                "lagged": f"{of['lagged']:.2f}",
                "rank": f"{of['phase_rank']:.0f} of {of['phase_offsets']:.0f}",
                "latent seam": f"{of['latent_ratio']:.2f}",
                "latent lagged": f"{of['latent_lagged']:.2f}",
                "latent rank": f"{of['latent_phase_rank']:.0f} of {of['latent_phase_offsets']:.0f}",
                "colour": f"{of['colour_correlation']:.2f}",
                "collages": f"{of['collage_excess']:.0%}",
            }
        )
    return markdown(pd.DataFrame(lines), left=1)


def cost_table(results: Results) -> str:
    """What each row costs."""
    lines = [
        {
            "row": row,
            "live parameters": f"{of['parameters_live']:,}",
            "calls per block": f"{results.sampling[row]['calls']:,}",
            "GFLOP per image and call": f"{of['gflop_per_image_step']:.3f}",
            "GFLOP per drawn image": f"{gflop(results, row):.2f}",
            "training seconds": f"{of['train_seconds']:,.0f}",
            "trained images/s": f"{of['train_images_per_second']:,.0f}",
            "drawn images/s": f"{results.sampling[row]['sampling_images_per_second']:,.0f}",
            "peak MB, training": f"{of['train_peak_mb']:,}",
            "peak MB, drawing": f"{results.sampling[row]['sampling_peak_mb']:,}",
        }
        for row, of in results.ldm.items()
    ]
    return markdown(pd.DataFrame(lines), left=1)


def claims_table(rows: dict[str, dict], asserted: list[Claim]) -> str:
    """The claims with their figures, and whether they hold."""
    lines = []
    for claim in asserted:
        spread = claims.unit(claim, rows)
        said = claims.holds(claim, rows)
        values = [claims.figure(rows, row, claim.measure) for row in (claim.row, claim.than)]
        lines.append(
            {
                "claim": claim.says,
                "measure": claim.measure,
                "compared": _compared(claim),
                "row / the other": " / ".join(MISSING if v is None else f"{v:.4g}" for v in values),
                "spread": MISSING if spread is None else f"{spread:.2g}",
                "holds": {True: "yes", False: "**no**", None: "cannot be said"}[said],
            }
        )
    return markdown(pd.DataFrame(lines), left=3)


def _compared(claim: Claim) -> str:
    if claim.relation == "level":
        return f"{claim.row} within {claim.margin:g} spreads of {claim.than}"
    by = f" by {claim.margin:g} spreads" if claim.margin else ""
    return f"{claim.row} {claim.relation} {claim.than}{by}"


def ablation_table(entries: list[str], rows: dict[str, dict]) -> str:
    """Entries side by side as Markdown, each the mean and spread of its seeds.

    Args:
        entries: of a table of the ablations.
        rows: headline numbers of their runs (`numbers`).
    """
    lines = []
    for entry in entries:
        alike = claims.runs(rows, entry)
        first, second = list(rows[alike[0]])[:2]
        columns = {
            "uncopied": 1,
            first: 1,
            second: 1,
            "against_reconstructions": 1,
            "recall": 2,
            "copied": 2,
            "own_query": 2,
            **({"own_group": 2} if any("own_group" in of for of in rows.values()) else {}),
            "latent_seam": 2,
            "colour": 2,
            "collages": 2,
        }
        of = rows[alike[0]]
        lines.append(
            {
                "row": entry,
                "seeds": str(len(alike)),
                **{
                    column: _mean([rows[other].get(column) for other in alike], digits)
                    for column, digits in columns.items()
                },
                "live parameters": f"{of['parameters_live']:,}",
                "GFLOP per drawn image": f"{of['gflop_per_image']:.2f}",
                "drawn images/s": f"{of['sampling_images_per_second']:,.0f}",
            }
        )
    return markdown(pd.DataFrame(lines), left=1)


def neighbour_table(tables: dict[str, dict]) -> str:
    """What the neighbour tables are like, a line each.

    Args:
        tables: content of metrics/neighbours/<table>.json by table.
    """
    lines = [
        {
            "neighbours": name.removeprefix("ablations/"),
            "never retrieved": f"{of['never_retrieved']:.0%}",
            "largest hub": f"{of['largest_hub']:,}",
            "mean cosine": f"{of['cosine']:.3f}",
            "own group": f"{of['own_group']:.0%}" if "own_group" in of else MISSING,
        }
        for name, of in tables.items()
    ]
    return markdown(pd.DataFrame(lines), left=1)


def paper_table(results: Results) -> str:
    """Table 1 of the paper, as printed, beside our rows of the same names."""
    first = scores.frechet_keys(results.reference)[0]
    ours_all = {row: {first: of[first]["val"]} for row, of in results.fid.items()}
    lines = [
        {
            "the paper's row": theirs,
            "ours": ours,
            first: tenths(claims.figure(ours_all, ours, first)),
            "FID on CelebA, as printed": f"{celeba:.2f}",
            "FID on ImageNet100, as printed": f"{imagenet:.2f}" if imagenet else MISSING,
        }
        for theirs, ours, celeba, imagenet in PRINTED
    ]
    return markdown(pd.DataFrame(lines), left=2)


def systems_table(variants: dict[str, Variant], results: Results) -> str:
    """What each row is, by what it can do.

    Args:
        variants: that of each row, its number of blocks filled in.
        results: of the rows.
    """
    lines = []
    for row, of in variants.items():
        parts = " or ".join(f"1/{patch.parts}" for patch in of.patches)
        turns = of.blocks**2 if of.previous else 1
        between, parallel = MISSING, "yes" if of.blocks > 1 else MISSING
        if of.previous:
            between, parallel = "the one before", "no"
        if of.halo:
            between, parallel = f"a rim of {of.halo}", "step by step"
        side, what = of.blocks, "blocks"
        if of.collage:
            side, what = of.collage + 1, "patches"
            between, parallel = "features", "step by step"
        lines.append(
            {
                "row": row.rpartition("/")[0] or row,
                "space": of.space,
                "seen at once": f"{side} x {side} {what}" if side > 1 else "all",
                "trained on": f"{parts} of a side" if parts else "the same",
                "told of neighbours": TOLD[of.neighbours],
                "between blocks": between,
                "blocks in parallel": parallel,
                "live parameters": f"{results.ldm[row]['parameters_live']:,}",
                "calls in turn": f"{turns * results.sampling[row]['calls']:,}",
                "GFLOP per drawn image": f"{gflop(results, row):.2f}",
                "training seconds": f"{results.ldm[row]['train_seconds']:,.0f}",
            }
        )
    return markdown(pd.DataFrame(lines), left=6)


def leaves_table(content: dict) -> str:
    """Nested figures, a line each."""
    frame = pd.DataFrame(_leaves(content), columns=["measured", "value"])
    return markdown(frame, left=1)


def _mean(values: list[float | None], digits: int) -> str:
    """Mean and, of two and more, standard deviation."""
    if None in values:
        return MISSING
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _leaves(content: dict, path: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, value in content.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            lines += _leaves(value, name)
        else:
            lines.append((name, f"{value:,.5g}" if isinstance(value, float) else str(value)))
    return lines


def _beside(of: dict | None) -> str:
    """A rate and its null."""
    return MISSING if of is None else _percent(of["rate"], of["null"])


def _percent(rate: float, null: float) -> str:
    return f"{100 * rate:.0f} ({100 * null:.0f}) %"


def tenths(distance: float | None) -> str:
    """A distance as the tables write it."""
    return MISSING if distance is None else f"{distance:.1f}"


def markdown(frame: pd.DataFrame, left: int) -> str:
    """A table whose first `left` columns are aligned left, and the rest, as numbers, right."""
    align = ["left"] * left + ["right"] * (frame.shape[1] - left)
    return frame.to_markdown(index=False, colalign=align, disable_numparse=True)
