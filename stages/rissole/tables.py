"""The table of scores, as numbers to compare and as Markdown to read, and what it says."""

import pandas as pd

from rissole import scores

# Table 1 of the paper: its name of the row, ours, FID on CelebA 64 and on ImageNet100.
PRINTED = (
    ("RDM", "rdm", 32.36, 60.61),
    ("Patch Diffusion", None, 14.51, None),
    ("RISSOLE - RAG", "no_rag", 23.45, 29.59),
    ("RISSOLE + P", "rissole_prev", 17.01, 20.28),
    ("RISSOLE + Pos", "rissole_pos", 11.61, 14.59),
    ("RISSOLE", "rissole", 9.82, 12.93),
)
CLAIM = ("rissole", "no_rag", "rissole_again")  # the better, the worse, the better's other seed
MISSING = "-"


def numbers(fid: dict[str, dict], ldm: dict[str, dict], reference: dict) -> dict:
    """All numbers of the table, nested: `rows` by row, `reference`, and the `claim` if it is there.

    Args:
        fid: content of metrics/fid/<row>.json by row, in the order of the table.
        ldm: content of metrics/ldm/<row>.json by row.
        reference: content of metrics/reference.json.
    """
    first, second = judges(reference)
    rows = {
        row: {
            first: fid[row][first]["val"],
            second: fid[row][second]["val"],
            "against_reconstructed": fid[row][first]["reconstructed"],
            "parameters_live": ldm[row]["parameters_live"],
            "gflop_per_image_step": ldm[row]["gflop_per_image_step"],
            "train_seconds": ldm[row]["train_seconds"],
        }
        for row in fid
    }
    table = {"rows": rows, "reference": reference}
    if all(row in rows for row in CLAIM):
        table["claim"] = {
            "val": _claim(rows, first),
            "reconstructed": _claim(rows, "against_reconstructed"),
        }
    return table


def judges(reference: dict) -> tuple[str, str]:
    """The keys of the first and of the second judge's Frechet distance."""
    first, second = (key for key, _ in scores.KEYS.values() if key in reference)
    return first, second


def markdown(table: dict, measured: dict[str, dict]) -> str:
    """The page: scores, how to read them, the claim, other measurements, the paper's figures.

    Args:
        table: from `numbers`.
        measured: content of other metrics files by name; each number gets a line.
    """
    reference = table["reference"]
    first, second = judges(reference)
    parts = [
        "# Scores",
        score_table(table),
        _how_to_read(reference, first, second),
        verdict(table),
        "## The stages before",
        _markdown(pd.DataFrame(_leaves(measured), columns=["measured", "value"]), left=1),
        "## The paper's figures",
        "As printed in its table 1: FID, on other images, by another protocol. Not comparable with"
        f" our {first}; only the order of the rows is.",
        _markdown(_printed(table["rows"], first), left=2),
    ]
    return "\n\n".join(parts) + "\n"


def score_table(table: dict) -> str:
    """The main table as Markdown, a line per row."""
    reference = table["reference"]
    first, second = judges(reference)
    lines = [
        {
            "row": row,
            f"**{first}**": _tenths(of[first]),
            "floor": _tenths(reference[first]["floor"]),
            second: _tenths(of[second]),
            "against reconstructions": _tenths(of["against_reconstructed"]),
            "live parameters": f"{of['parameters_live']:,}",
            "GFLOP per image": f"{of['gflop_per_image_step']:.3f}",
            "training seconds": f"{of['train_seconds']:,.0f}",
        }
        for row, of in table["rows"].items()
    ]
    return _markdown(pd.DataFrame(lines), left=1)


def verdict(table: dict) -> str:
    """Whether retrieval pays, in words: is the lead larger than what two seeds differ by?"""
    better, worse, again = CLAIM
    if "claim" not in table:
        return f"Whether {better} beats {worse} cannot be said without the rows {', '.join(CLAIM)}."
    named = {"val": "Against val images", "reconstructed": "Against their reconstructions"}
    return "\n\n".join(
        f"{named[against]}, {_said(claim, better, worse)}"
        for against, claim in table["claim"].items()
    )


def _claim(rows: dict[str, dict], key: str) -> dict[str, float]:
    better, worse, again = (rows[row][key] for row in CLAIM)
    return {
        CLAIM[0]: better,
        CLAIM[1]: worse,
        "lead": round(worse - better, 4),
        "two_seeds_differ": round(abs(better - again), 4),
    }


def _said(claim: dict[str, float], better: str, worse: str) -> str:
    lead, noise = claim["lead"], claim["two_seeds_differ"]
    figures = f"{claim[better]:.1f} against {claim[worse]:.1f}"
    if lead > noise:
        return (
            f"**{better} beats {worse}**: {figures}, a lead of {lead:.1f} where two seeds"
            f" differ by {noise:.1f}."
        )
    if lead > 0:
        return (
            f"**{better} does not beat {worse}**: {figures}, a lead of {lead:.1f} where two seeds"
            f" differ by {noise:.1f}."
        )
    return (
        f"**{better} does not beat {worse}**: {figures}, {-lead:.1f} behind where two seeds"
        f" differ by {noise:.1f}."
    )


def _how_to_read(reference: dict, first: str, second: str) -> str:
    of, images = reference[first], reference["images"]
    name = "" if first == "fid" else f" {first} is not FID, nor comparable with one."
    return (
        f"Lower is better. {first} is the Frechet distance of {images['drawn']:,} drawn images from"
        f" {images['val']:,} val images, in the features of one network; {second} in those of a"
        f" second.{name} The distance depends on the number of images: `floor` is what as many true"
        " train images score against the same val images. `against reconstructions` takes the"
        " VQ-GAN's reconstructions of the val images in their place, which hides what the VQ-GAN"
        f" loses: they are {_tenths(of['reconstructed'])} away from the val images. Latents of true"
        f" train images, decoded, score {_tenths(of['perfect'])} against the val images and"
        f" {_tenths(of['perfect_reconstructed'])} against their reconstructions: the best that a"
        " row can hope for. Live parameters are those of the denoiser that receive a gradient;"
        " GFLOP are those of one denoising step of all blocks of an image. Two seeds (rissole and"
        " rissole_again) share images, first stage and queries; they differ in training and noise."
    )


def _printed(rows: dict[str, dict], first: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "the paper's row": theirs,
                "ours": ours or MISSING,
                first: _tenths(rows[ours][first]) if ours in rows else MISSING,
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


def _tenths(distance: float) -> str:
    return f"{distance:.1f}"


def _markdown(frame: pd.DataFrame, left: int) -> str:
    """A table whose first `left` columns are aligned left, and the rest, as numbers, right."""
    align = ["left"] * left + ["right"] * (frame.shape[1] - left)
    return frame.to_markdown(index=False, colalign=align, disable_numparse=True)
