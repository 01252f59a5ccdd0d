"""The losses of all trainings, and the use of the codebook, as figures."""

from pathlib import Path

from rissole.harness.errors import InputError
from rissole.latent import latents
from rissole.report import figures

import numpy as np
import pandas as pd
import torch


def losses(folder: Path, variants: list[str]) -> list[dict]:
    """A figure for the first stage and for each variant: `title`, `svg`, `alt`, `last`.

    Args:
        folder: of the curves.
        variants: their names.

    Raises:
        InputError: a curve is missing or broken.
    """
    curves = {name: _read(folder / f"{name}.csv") for name in variants}
    band = _band(list(curves.values()))
    return [
        _figure("the first stage", "vqgan", _read(folder / "vqgan.csv"), None),
        *(_figure(name, name, curve, band) for name, curve in curves.items()),
    ]


def codebook(counts: np.ndarray) -> dict:
    """How often each code is used: `svg`, and the numbers `codes`, `used` and `perplexity`.

    Args:
        counts: occurrences of each code, int64 (K,).
    """
    shares = counts[counts > 0] / counts.sum()
    return {
        "svg": figures.shares("codes", counts),
        "codes": len(counts),
        "used": len(shares),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
    }


def count_codes(encoded: Path) -> np.ndarray:
    """How often each code occurs in the train latents, int64 (K,)."""
    counts = 0
    for part in latents.read_parts(encoded, "train"):
        counts += torch.bincount(part.codes.flatten(), minlength=len(part.codebook))
    return counts.numpy()


def _read(path: Path) -> pd.DataFrame:
    """Columns `step`, `loss` and `validation`, the latter empty where none was taken."""
    try:
        curve = pd.read_csv(path)
        if "validation" not in curve:
            curve["validation"] = np.nan
        return curve[["step", "loss", "validation"]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no loss curve ({error}); run `dvc repro`") from None


def _figure(title: str, name: str, curve: pd.DataFrame, band: tuple | None) -> dict:
    checked = curve.dropna()
    first, last = curve["loss"].iloc[0], curve["loss"].iloc[-1]
    return {
        "title": title,
        "svg": figures.loss_curve(
            f"loss-{name}",
            curve["step"].to_numpy(),
            curve["loss"].to_numpy(),
            (checked["step"].to_numpy(), checked["validation"].to_numpy()),
            band,
        ),
        "alt": f"Loss of {title}, from {first:.3g} to {last:.3g}.",
        "last": f"{last:.3g}",
        "best": f"{checked['validation'].min():.3g}" if len(checked) else None,
    }


def _band(curves: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of the longest curve, and the lowest and the highest loss of all curves there."""
    steps = max((of["step"].to_numpy() for of in curves), key=lambda of: of[-1])
    every = [np.interp(steps, of["step"], of["loss"], right=np.nan) for of in curves]
    return steps, np.nanmin(every, 0), np.nanmax(every, 0)
