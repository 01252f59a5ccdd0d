"""The tables of all rows, as numbers to compare and as Markdown to read."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rissole import claims, files, schema, scores
from rissole.claims import Claim
from rissole.objections import objections

# Table 1 of the paper: its name of the row, ours, FID on CelebA 64 and on ImageNet100.
PRINTED = (
    ("RDM", "rdm", 32.36, 60.61),
    ("Patch Diffusion", None, 14.51, None),
    ("RISSOLE - RAG", "no_rag", 23.45, 29.59),
    ("RISSOLE + P", "rissole_prev", 17.01, 20.28),
    ("RISSOLE + Pos", "rissole_pos", 11.61, 14.59),
    ("RISSOLE", "rissole", 9.82, 12.93),
)
CONTRADICTIONS = (
    "+ Pos on CelebA is 11.61 in its table 1 and 11.93 in its section 5.4.1, which points there.",
    "Section 5.1 describes + P as having no retrieval, section 5.4.2 as the previous block beside"
    " the neighbours; one row serves both.",
    "Patch Diffusion is said to be compared in its patches-only setting, then not to be included;"
    " the text cites Patch-DM for it, and its figure is copied from another protocol.",
    "RDM is said to have somewhat more parameters at matched size; by the totals that the released"
    " code prints it has fewer.",
    "The row is RISSOLE-P in the text and RISSOLE + P in the table, where - RAG means without.",
    "The query by whole latent, which the text puts second, is better (11.39 against 12.93) in the"
    " authors' notebook.",
)
MISSING = "-"
SPREAD = (
    "A spread is the standard deviation of the two rows over seeds, or that of all rows trained"
    " twice where these were not, widened where few seeds tell it."
)


@dataclass(frozen=True)
class Results:
    """What the stages measured.

    Attributes:
        fid, audit, ldm, sampling: content of metrics/<...>/<row>.json by row; `ldm` that of the
            row's variant.
        controls: content of metrics/controls.json.
        reference: content of metrics/reference.json.
    """

    fid: dict[str, dict]
    audit: dict[str, dict]
    ldm: dict[str, dict]
    sampling: dict[str, dict]
    controls: dict[str, dict]
    reference: dict

    def measured(self, row: str) -> tuple[dict, dict]:
        """Scores and audit of a row or of a control."""
        if row in self.controls:
            return self.controls[row]["fid"], self.controls[row]["audit"]
        return self.fid[row], self.audit[row]

    def ranked(self) -> list[str]:
        """Rows and controls by the score that copying cannot improve; those without one last."""
        first = scores.frechet_keys(self.reference)[0]
        rows = [*self.fid, *self.controls]
        return sorted(rows, key=lambda row: self.measured(row)[0][first].get("uncopied", 1e9))


def read(rows: dict[str, schema.Row], reference: dict, controls: dict) -> Results:
    """What the stages wrote of some rows of the tables, ablations or not.

    Raises:
        InputError: a file is missing.
    """
    measured = {
        kind: {row: files.read_json(files.measured(kind, row)) for row in rows}
        for kind in ("fid", "audit", "sampling")
    }
    ldm = {row: files.read_json(files.measured("ldm", of.variant)) for row, of in rows.items()}
    return Results(**measured, ldm=ldm, controls=controls, reference=reference)


def numbers(results: Results) -> dict:
    """The headline numbers, few and flat, for `dvc metrics diff`: by row and measure."""
    first, second = scores.frechet_keys(results.reference)
    short = next(name for name in scores.SHORT.values() if name in results.reference)
    rows = {}
    for row in (*results.fid, *results.controls):
        fid, audit = results.measured(row)
        coherence = audit["coherence"]
        rows[row] = {
            first: fid[first]["val"],
            second: fid[second]["val"],
            "against_reconstructions": fid[first]["reconstructed"],
            "recall": fid[short]["recall"],
            "copied": audit["copied"]["rate"],
            "seam": coherence["latent_ratio"],
            "colour": coherence["colour_correlation"],
            "collages": coherence["collage_excess"],
        }
        if "uncopied" in fid[first]:
            rows[row]["uncopied"] = fid[first]["uncopied"]
        if "own_query" in audit:
            rows[row]["own_query"] = audit["own_query"]["rate"]
        if row in results.ldm:
            rows[row]["parameters_live"] = results.ldm[row]["parameters_live"]
            rows[row]["gflop_per_image"] = gflop(results, row)
            rows[row]["train_images_per_second"] = results.ldm[row]["train_images_per_second"]
            drawing = results.sampling[row]["sampling_images_per_second"]
            rows[row]["sampling_images_per_second"] = drawing
    return rows


def gflop(results: Results, row: str) -> float:
    """GFLOP that the denoiser spends on a drawn image."""
    steps = results.sampling[row]["steps"]
    return round(results.ldm[row]["gflop_per_image_step"] * steps, 3)


def markdown(
    results: Results, table: dict, asserted: list[Claim], repeats: list[list[str]], before: dict
) -> str:
    """The page.

    Args:
        results: of all rows.
        table: their `numbers`.
        asserted: the claims.
        repeats: rows that differ in seeds only (`config.Settings.repeats`).
        before: content of other metrics files by name; each number gets a line.
    """
    first = scores.frechet_keys(results.reference)[0]
    true = results.reference["coherence"]
    parts = [
        "# Scores",
        score_table(results),
        _how_to_read(results.reference),
        "## What the numbers say",
        claims_table(table, asserted, repeats),
        SPREAD + f" Trained twice: {_named(repeats)}.",
        "## More distances",
        distance_table(results),
        "Frechet distances from val, train and reconstructed images. `infinity`: that from val"
        " extrapolated to infinitely many drawn images (with fewer images than features"
        " little is taken off). `64 axes`: above its floor, on the first principal axes of train"
        " images. `of the uncopied`: precision and recall of the images that no copy test names,"
        " against val images whose groups are not in the database.",
        "## Copies",
        copies_table(results),
        "Each figure beside that of held-out images in their place. `copied`: images nearer to a"
        " train image, in whole or in a block or inside of one, than nearly all held-out images"
        " are. `own query`: the nearest train image is the one behind the image. `own neighbours`:"
        " the nearest train block belongs to an own neighbour; blurred images lean on their"
        " neighbours too, so `pasted` tells: the chance that an own neighbour stands out more in a"
        " held-out image than in a drawn one, above which nothing is pasted (0.5 for held-out"
        " images, 0 for a collage). `C_T`: far below 0, too near to train images; far above,"
        " underfit. `sources`: train images that the blocks of an image are nearest to. `rank 1`:"
        " of the blocks nearest to an own neighbour, the share nearest to the first. `swapped`,"
        " `permuted`, `dropped`: how far an image moves when its neighbours do, in units of the"
        " distance of two images.",
        "## Seams and coherence",
        coherence_table(results),
        "Seam figures are ratios to the VQ-GAN's reconstructions of val images: 1 is no seam, below"
        " 1 a smoothed one. `lagged` looks across a wider gap, which smoothing does not hide."
        " `rank`: of the border among all offsets, by how it stands out. `colour`: correlation of"
        f" the mean colours of two blocks, {true['colour_correlation']:.2f} in val images and"
        f" {true['colour_correlation_shuffled']:.2f} when their blocks are shuffled."
        " `collages`: share taken for block-shuffled images by a detector that has never seen a"
        " drawn one, less that of val images.",
        "## Cost",
        cost_table(results),
        "Parameters are those of the denoiser that receive a gradient. GFLOP are the denoiser's.",
        "## The stages before",
        _markdown(pd.DataFrame(_leaves(before), columns=["measured", "value"]), left=1),
        "## The paper's figures",
        "As printed in its table 1: FID, on other images, by another protocol. Not comparable with"
        f" our {first}; only the order of the rows is. It contradicts itself:",
        "\n".join(f"- {sentence}" for sentence in CONTRADICTIONS),
        _markdown(_printed(results, first), left=2),
    ]
    return "\n\n".join(parts) + "\n"


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
                "**uncopied**": _tenths(fid[first].get("uncopied")),
                f"{first} above floor": _tenths(fid[first]["above_floor"]),
                first: _tenths(fid[first]["val"]),
                second: _tenths(fid[second]["val"]),
                "against reconstructions": _tenths(fid[first]["reconstructed"]),
                "kernel": f"{fid[kernel]['val']:.2f} ± {fid[kernel]['interval']:.2f}",
                "precision": f"{fid[short]['precision']:.2f}",
                "recall": f"{fid[short]['recall']:.2f}",
                "coverage": f"{fid[short]['coverage']:.2f}",
                "objections": ", ".join(objections(audit, fid, reference)) or MISSING,
            }
        )
    return _markdown(pd.DataFrame(lines), left=1)


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
                    "val": _tenths(of["val"]),
                    "floor": _tenths(of["floor"]),
                    "train": _tenths(of["train"]),
                    "reconstructions": _tenths(of["reconstructed"]),
                    "infinity": _tenths(of["infinity"]),
                    "64 axes": _tenths(of.get("pca64")),
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
    return _markdown(pd.DataFrame(lines), left=2)


def copies_table(results: Results) -> str:
    """How much each row copies, beside held-out images."""
    lines = []
    for row in results.ranked():
        _, audit = results.measured(row)
        told = "ranks" in audit
        moved = audit.get("sensitivity", {})
        lines.append(
            {
                "row": f"*{row}*" if row in results.controls else row,
                "copied": _beside(audit["copied"]),
                "own query": _beside(audit.get("own_query")),
                "authentic": _beside(audit["authentic"]),
                "C_T": f"{audit['copying_test']['c_t']:.1f}",
                "block copies": _beside(audit["block_copies"]),
                "inside": _beside(audit["inner_block_copies"]),
                "equal codes": _beside(audit["exact_blocks"]),
                "own neighbours": _beside(audit.get("own_neighbours")),
                "inside them": _beside(audit.get("inner_own_neighbours")),
                "pasted": f"{audit['pasted']['chance']:.2f}" if told else MISSING,
                "sources": f"{audit['sources']:.1f}",
                "rank 1": f"{audit['ranks'][0]:.0%}" if told else MISSING,
                **{
                    name: f"{moved[name]:.2f}" if moved else MISSING
                    for name in ("swapped", "permuted", "dropped")
                },
            }
        )
    return _markdown(pd.DataFrame(lines), left=1)


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
    return _markdown(pd.DataFrame(lines), left=1)


def cost_table(results: Results) -> str:
    """What each row costs."""
    lines = [
        {
            "row": row,
            "live parameters": f"{of['parameters_live']:,}",
            "GFLOP per image and step": f"{of['gflop_per_image_step']:.3f}",
            "GFLOP per drawn image": f"{gflop(results, row):.2f}",
            "training seconds": f"{of['train_seconds']:,.0f}",
            "trained images/s": f"{of['train_images_per_second']:,.0f}",
            "drawn images/s": f"{results.sampling[row]['sampling_images_per_second']:,.0f}",
            "peak MB, training": f"{of['train_peak_mb']:,}",
            "peak MB, drawing": f"{results.sampling[row]['sampling_peak_mb']:,}",
        }
        for row, of in results.ldm.items()
    ]
    return _markdown(pd.DataFrame(lines), left=1)


def claims_table(rows: dict[str, dict], asserted: list[Claim], repeats: list[list[str]]) -> str:
    """The claims with their figures, and whether they hold."""
    lines = []
    for claim in asserted:
        spread = claims.unit(claim, rows, repeats)
        said = claims.holds(claim, rows, repeats)
        values = [
            claims.figure(rows, repeats, row, claim.measure) for row in (claim.row, claim.than)
        ]
        lines.append(
            {
                "claim": claim.says,
                "measure": claim.measure,
                "row / the other": " / ".join(MISSING if v is None else f"{v:.4g}" for v in values),
                "spread": MISSING if spread is None else f"{spread:.2g}",
                "holds": {True: "yes", False: "**no**", None: "cannot be said"}[said],
            }
        )
    return _markdown(pd.DataFrame(lines), left=2)


def ablation_table(names: list[str], rows: dict[str, dict], repeats: list[list[str]]) -> str:
    """Rows side by side as Markdown, those that differ in their seed as one line with both.

    Args:
        names: of rows.
        rows: their headline numbers (`numbers`).
        repeats: rows that differ in seeds only (`config.Settings.repeats`).
    """
    lines, done = [], set()
    for name in names:
        group = next((g for g in repeats if name in g), [name])
        alike = [other for other in group if other in names]
        if name in done:
            continue
        done |= set(alike)
        first, second = list(rows[name])[:2]
        columns = {
            "uncopied": 1,
            first: 1,
            second: 1,
            "against_reconstructions": 1,
            "recall": 2,
            "copied": 2,
            "own_query": 2,
            "seam": 2,
            "colour": 2,
            "collages": 2,
        }
        of = rows[name]
        lines.append(
            {
                "row": name.removeprefix("ablations/"),
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
    return _markdown(pd.DataFrame(lines), left=1)


def _mean(values: list[float | None], digits: int) -> str:
    """Mean and, of two and more, standard deviation."""
    if None in values:
        return MISSING
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _how_to_read(reference: dict) -> str:
    first, second = scores.frechet_keys(reference)
    of, images = reference[first], reference["images"]
    return (
        f"Lower is better. {first} is the Frechet distance of {images['drawn']} drawn images from"
        f" {images['val']:,} val images, in the features of one network; {second} in those of a"
        f" second. {'' if first == 'fid' else f'{first} is not FID, nor comparable with one. '}"
        f"As many true train images score {_tenths(of['floor'])}, the floor"
        f" ({_tenths(of['floor_by_formula'])} by the formula for Gaussian features). Copies of"
        " train images score like true ones, so rows are ranked by `uncopied`: the distance above"
        " that floor of those images that no copy test names; a row that is accused of copying as a"
        " whole has none. `against reconstructions` takes the VQ-GAN's reconstructions of the val"
        " images for the truth, which hides what the VQ-GAN loses: they are"
        f" {_tenths(of['reconstructed'])} away from the val images. Latents of true train images,"
        f" decoded, score {_tenths(of['perfect'])} against the val images and"
        f" {_tenths(of['perfect_reconstructed'])} against their reconstructions: the best that a"
        " row can hope for. `kernel` is the kernel distance from disjoint blocks with its 95 %"
        " interval. Rows in italics were trained by nobody: true images and cheats made of them."
        " `held_out`, `reconstructed` and `half_copies` show half of the val images and are scored"
        " against the others."
    )


def _named(repeats: list[list[str]]) -> str:
    return "; ".join(" and ".join(group) for group in repeats) or "there are none here"


def _printed(results: Results, first: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "the paper's row": theirs,
                "ours": ours or MISSING,
                first: _tenths(results.fid[ours][first]["val"]) if ours in results.fid else MISSING,
                "FID on CelebA, as printed": f"{celeba:.2f}",
                "FID on ImageNet100, as printed": f"{imagenet:.2f}" if imagenet else MISSING,
            }
            for theirs, ours, celeba, imagenet in PRINTED
        ]
    )


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
    """A rate and its null in percent."""
    return MISSING if of is None else f"{100 * of['rate']:.0f} ({100 * of['null']:.0f}) %"


def _tenths(distance: float | None) -> str:
    return MISSING if distance is None else f"{distance:.1f}"


def _markdown(frame: pd.DataFrame, left: int) -> str:
    """A table whose first `left` columns are aligned left, and the rest, as numbers, right."""
    align = ["left"] * left + ["right"] * (frame.shape[1] - left)
    return frame.to_markdown(index=False, colalign=align, disable_numparse=True)
