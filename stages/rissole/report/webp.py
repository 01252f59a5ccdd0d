"""Pictures as WebP in data URIs, as large and as good as a budget of bytes allows."""

import base64
import io

from rissole.harness.errors import InputError

import numpy as np
from PIL import Image

# Sides in pixels and qualities to try, from the best down; none is larger than the pictures.
SIDES, QUALITIES = (128, 96, 64, 48, 32, 24, 16), (90, 75, 60)


def fit(pictures: list[np.ndarray], budget: int) -> list[str]:
    """Encode pictures uint8 (h, w, 3), all alike, so that together they weigh no more than asked.

    Args:
        pictures: to encode.
        budget: bytes of all data URIs together.

    Returns:
        A data URI of each.

    Raises:
        InputError: they are too many for any quality.
    """
    if not pictures:
        return []
    sides = [side for side in SIDES if side < len(pictures[0])]
    whole = min(len(pictures[0]), SIDES[0])
    for side in dict.fromkeys([whole, *sides]):
        smaller = [_resized(picture, side) for picture in pictures]
        for quality in QUALITIES:
            sample = smaller[:: max(1, len(smaller) // 64)]  # tells most failures in no time
            if _weight(_encoded(sample, quality)) * len(smaller) > 1.1 * budget * len(sample):
                continue
            encoded = _encoded(smaller, quality)
            if _weight(encoded) <= budget:
                return encoded
    raise InputError(
        f"report: {len(pictures):,} pictures do not fit {budget / 1e6:.1f} MB at any quality;"
        " remove `rows` from params.yaml"
    )


def _resized(picture: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return image if image.width == side else image.resize((side, side), Image.Resampling.BOX)


def _encoded(pictures: list[Image.Image], quality: int) -> list[str]:
    return [_data_uri(picture, quality) for picture in pictures]


def _data_uri(picture: Image.Image, quality: int) -> str:
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _weight(encoded: list[str]) -> int:
    return sum(map(len, encoded))
