"""What the project asserts about its rows, checked against their figures.

A claim names a measure, two rows, and which of them is to be higher, by how many spreads: a spread
is what equal rows with other seeds differ by. A claim that does not hold stays in the list, as the
negative result that it is.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rissole.core.config import Checked
from rissole.harness.errors import InputError

import numpy as np
import yaml
from pydantic import Field, TypeAdapter, ValidationError

# 97.5 % quantiles of Student's t, of 1 to 10 degrees of freedom.
STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Claim(Checked):
    """One assertion, as metrics/claims.yaml writes it.

    Attributes:
        says: the sentence.
        measure: a key of the rows in metrics/tables.json.
        row: the entry whose figure is meant.
        relation: what it is to that of `than`; `level` means no more than `margin` spreads apart.
        than: another entry.
        margin: spreads by which the figures must differ at least.
        holds: whether it does, in the committed results.
    """

    says: str
    measure: str
    row: str
    relation: Literal["above", "below", "level"]
    than: str
    margin: float = Field(ge=0)
    holds: bool


def read(path: Path) -> list[Claim]:
    """Read the list of claims.

    Raises:
        InputError: the file is missing or no list, or a claim lacks a key, has one too many or of
            the wrong type.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; take it back from git")
    try:
        return TypeAdapter(list[Claim]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "all of it"
        raise InputError(
            f"{path}: {where}: {fault['msg']}; see rissole/results/claims.py"
        ) from None


def runs(rows: Iterable[str], entry: str) -> list[str]:
    """The rows of an entry: itself, or it with each of its seeds, as `rissole/0`."""
    return [name for name in rows if entry in (name, name.rpartition("/")[0])]


def spread(rows: dict[str, dict], entries: Iterable[str], measure: str) -> float | None:
    """What equal rows with other seeds differ by: their standard deviation, pooled over entries.

    Widened where few seeds tell it, as Student's t is against the normal law: 6.5-fold for a single
    pair. None where no two equal rows have the measure.
    """
    squares, freedom = 0.0, 0
    for entry in entries:
        values = [rows[name][measure] for name in runs(rows, entry) if measure in rows[name]]
        if len(values) > 1:
            squares += np.square(np.array(values) - np.mean(values)).sum()
            freedom += len(values) - 1
    if not freedom:
        return None
    wider = STUDENT[freedom - 1] / 1.96 if freedom <= len(STUDENT) else 1 + 1.25 / freedom
    return float(wider * np.sqrt(squares / freedom))


def figure(rows: dict[str, dict], entry: str, measure: str) -> float | None:
    """An entry's measure, mean over its seeds; None where one of them has none."""
    values = [rows[name].get(measure) for name in runs(rows, entry)]
    return float(np.mean(values)) if values and None not in values else None


def unit(claim: Claim, rows: dict[str, dict]) -> float | None:
    """The spread that a claim is measured in: that of its own two rows, else that of all.

    That two rows are level is measured in the smaller of both: a row whose seeds differ much would
    be level with everything.
    """
    own = spread(rows, (claim.row, claim.than), claim.measure)
    entries = dict.fromkeys(name.rpartition("/")[0] for name in rows if "/" in name)
    every = spread(rows, entries, claim.measure)
    if own is None or every is None:
        return every if own is None else own
    return min(own, every) if claim.relation == "level" else own


def holds(claim: Claim, rows: dict[str, dict]) -> bool | None:
    """Whether a claim holds; None where a row, its measure or a spread is missing."""
    of, than = (figure(rows, row, claim.measure) for row in (claim.row, claim.than))
    spreads = unit(claim, rows)
    if None in (of, than, spreads):
        return None
    if claim.relation == "level":
        return abs(of - than) <= claim.margin * spreads
    return (of - than if claim.relation == "above" else than - of) > claim.margin * spreads
