"""The side that pictures are cut to, where nobody says it."""

import io
from collections.abc import Sequence

from rissole.core import numerics
from rissole.dataset import prepare
from rissole.dataset.settings import SIDES
from rissole.dataset.sources import Record

import numpy as np
from PIL import Image

LOOKED_AT = 200  # pictures at most


def fitting(records: Sequence[Record]) -> int:
    """The largest of `SIDES` that most pictures have, their shorter side counted.

    Pictures that cannot be read are passed over; where none can, it is the largest of all.

    Args:
        records: of the pictures.
    """
    found = []
    for at in numerics.evenly(len(records), LOOKED_AT):
        try:
            with Image.open(io.BytesIO(records[at].read()), formats=prepare.FORMATS) as picture:
                found.append(min(picture.size))
        except Exception:  # PIL raises almost anything; split_data lists what cannot be read
            continue
    usual = np.median(found) if found else max(SIDES)
    return max((side for side in SIDES if side <= usual), default=min(SIDES))
