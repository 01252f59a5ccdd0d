"""Objections: each raised by its own figure, just beyond its limit, and none by true images."""

from copy import deepcopy

from rissole.results.objections import COLOUR, RECALL, SEAM, objections

import numpy as np
import pytest

REFERENCE = {
    "coherence": {"colour_correlation": 0.7, "collages": 0.02},
    "effnet_lite1": {"recall": 0.6},
    "effnet_lite2": {"recall": 0.1},
}
AUDIT = {
    "images": 500,
    "held_out": 1000,
    "accused": [],
    "copied": {"rate": 0.1, "null": 0.1},
    "coherence": {
        "ratio": 1.0,
        "lagged": 1.0,
        "latent_ratio": 1.0,
        "latent_lagged": 1.0,
        "colour_correlation": 0.7,
        "collage_excess": 0.0,
    },
}
FID = {"fd_effnet_lite1": {}, "effnet_lite1": {"recall": 0.6}, "effnet_lite2": {"recall": 0.0}}


def beyond_chance(null, images, held_out):
    """The share that is three pooled deviations above its null, by trial."""
    for share in np.arange(null, 1, 1e-6):
        both = (images * share + held_out * null) / (images + held_out)
        if share - null > 3 * np.sqrt(both * (1 - both) * (1 / images + 1 / held_out)):
            return share


COPIED = beyond_chance(0.1, 500, 500)  # the other 500 held-out images set the thresholds
COLLAGES = beyond_chance(0.02, 500, 1000) - 0.02
SEAMS = ("ratio", "lagged", "latent_ratio", "latent_lagged")

# The objection, the figure that raises it, its limit, and which way is worse.
LIMITS = [
    ("copied", "copied.rate", COPIED, 1),
    ("collage", "coherence.collage_excess", COLLAGES, 1),
    ("colour", "coherence.colour_correlation", 0.7 - COLOUR, -1),
    *(("seams", f"coherence.{name}", SEAM, 1) for name in SEAMS),
    ("recall", "recall", 0.6 - RECALL, -1),
]


def raised(key=None, value=None):
    """Objections to true images with one figure changed."""
    audit, fid = deepcopy(AUDIT), deepcopy(FID)
    if key == "recall":
        fid["effnet_lite1"]["recall"] = value
    elif key is not None:
        *path, name = key.split(".")
        content = audit
        for part in path:
            content = content[part]
        content[name] = value
    return objections(audit, fid, REFERENCE)


def test_true_images_raise_none():
    assert raised() == []


@pytest.mark.parametrize(("name", "key", "limit", "worse"), LIMITS)
def test_a_figure_just_beyond_its_limit_raises_its_objection_and_no_other(name, key, limit, worse):
    assert raised(key, limit + worse * 1e-5) == [name]
    assert raised(key, limit - worse * 1e-5) == []


@pytest.mark.parametrize("name", ["own_query", "pasted"])
def test_a_set_that_is_accused_is_objected_to_by_that_name(name):
    assert raised("accused", [name]) == [name]


def test_a_rate_that_shows_among_many_images_is_chance_among_few():
    assert raised("copied.rate", 0.17) == ["copied"]
    audit = deepcopy(AUDIT) | {"images": 50, "held_out": 100}
    audit["copied"]["rate"] = 0.16
    assert objections(audit, FID, REFERENCE) == []


def test_it_is_the_first_judge_whose_recall_counts():
    fid = FID | {"fid": {}, "inception": {"recall": 0.3}}
    reference = REFERENCE | {"inception": {"recall": 0.5}}
    assert objections(AUDIT, fid, reference) == ["recall"]
    fid["inception"] = {"recall": 0.45}
    fid["effnet_lite1"] = {"recall": 0.0}
    assert objections(AUDIT, fid, reference) == []


def test_fewer_taken_for_collages_than_of_any_held_out_images_is_no_objection():
    """The excess is over the held-out images of the audit, the null over all of them."""
    audit = deepcopy(AUDIT) | {"images": 10_000, "held_out": 300}
    audit["coherence"]["collage_excess"] = -0.03
    assert objections(audit, FID, REFERENCE) == []
