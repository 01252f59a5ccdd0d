"""What the stages measured of all rows, read together, and the headline numbers of it."""

from dataclasses import dataclass, replace
from pathlib import Path

from rissole.core import files
from rissole.drawing.settings import Row
from rissole.harness import run
from rissole.harness.errors import InputError
from rissole.judging import scores


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

    def some(self, rows: list[str]) -> "Results":
        """Those of some rows, with all controls."""
        kinds = ("fid", "audit", "ldm", "sampling")
        of = {kind: {row: getattr(self, kind)[row] for row in rows} for kind in kinds}
        return replace(self, **of)

    def ranked(self) -> list[str]:
        """Rows and controls by the score that copying cannot improve; those without one last."""
        first = scores.frechet_keys(self.reference)[0]
        rows = [*self.fid, *self.controls]
        return sorted(rows, key=lambda row: self.measured(row)[0][first].get("uncopied", 1e9))


def read(metrics: Path, rows: dict[str, Row], controls: dict) -> Results:
    """What the stages wrote of some rows of the tables, ablations or not.

    Args:
        metrics: folder of it.
        rows: by name.
        controls: what was measured of them.

    Raises:
        InputError: a file is missing, or scores are not those against the reference.
    """
    reference = files.read_json(metrics / "reference.json")
    measured = {
        kind: {row: files.read_json(files.measured(metrics, kind, row)) for row in rows}
        for kind in ("fid", "audit", "sampling")
    }
    first = scores.frechet_keys(reference)[0]
    for row, of in rows.items():
        scored = measured["fid"][row].get(first)
        # As many true images lie as far away, unless they are others.
        if not scored or "images" not in of.sample and scored["floor"] != reference[first]["floor"]:
            raise InputError(
                f"{files.measured(metrics, 'fid', row)}: scored against other true images than"
                " reference.json; run"
                f" `dvc repro {run.address('compute_fid', row)}`"
            )
    ldm = {
        row: files.read_json(files.measured(metrics, "ldm", of.variant)) for row, of in rows.items()
    }
    return Results(**measured, ldm=ldm, controls=controls, reference=reference)


def read_before(metrics: Path, rows: dict[str, Row]) -> dict:
    """What the stages before some rows wrote: VQ-GAN, search, and their neighbour tables."""
    names = ("vqgan", "retrieval")
    before = {name: files.read_json(metrics / f"{name}.json") for name in names}
    return before | {"neighbours": read_neighbours(metrics, rows)}


def read_neighbours(metrics: Path, rows: dict[str, Row]) -> dict[str, dict]:
    """What the neighbour tables that some rows draw with are like, by table."""
    contexts = dict.fromkeys(of.context for of in rows.values() if of.context != "latents")
    tables = [context.removeprefix("neighbours/") for context in contexts]
    return {name: files.read_json(files.measured(metrics, "neighbours", name)) for name in tables}


def numbers(results: Results) -> dict:
    """The headline numbers, few and flat: by row and measure."""
    first, second = scores.frechet_keys(results.reference)
    short = next(name for name in scores.SHORT.values() if name in results.reference)
    rows = {}
    for row in (*results.fid, *results.controls):
        fid, audit = results.measured(row)
        coherence = audit["coherence"]
        rows[row] = {
            first: fid[first]["val"],
            **({second: fid[second]["val"]} if second in fid else {}),  # no control has it
            "against_reconstructions": fid[first]["reconstructed"],
            "recall": fid[short]["recall"],
            "copied": audit["copied"]["rate"],
            "latent_seam": coherence["latent_ratio"],
            "colour": coherence["colour_correlation"],
            "collages": coherence["collage_excess"],
        }
        if "uncopied" in fid[first]:
            rows[row]["uncopied"] = fid[first]["uncopied"]
        for name in ("own_query", "own_group"):
            if name in audit:
                rows[row][name] = audit[name]["rate"]
        if row in results.ldm:
            rows[row]["parameters_live"] = results.ldm[row]["parameters_live"]
            rows[row]["gflop_per_image"] = gflop(results, row)
            rows[row]["train_images_per_second"] = results.ldm[row]["train_images_per_second"]
            drawing = results.sampling[row]["sampling_images_per_second"]
            rows[row]["sampling_images_per_second"] = drawing
    return rows


def gflop(results: Results, row: str) -> float:
    """GFLOP that the denoiser spends on a drawn image."""
    calls = results.sampling[row]["calls"]  # of each block
    return round(results.ldm[row]["gflop_per_image_step"] * calls, 3)
