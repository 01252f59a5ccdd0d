"""What the measures object to in a set of images; true images get no objection."""

from rissole.auditing import copies
from rissole.judging import scores

SEAM = 1.1  # times that of true images, which stay within a third of what is allowed
COLOUR = 0.1  # correlation of block colours below that of true images
RECALL = 0.1  # below that of true latents, decoded


def objections(audit: dict, fid: dict, reference: dict) -> list[str]:
    """The names of the measures that a set of images fails.

    Args:
        audit: content of metrics/audit/<row>.json.
        fid: content of metrics/fid/<row>.json.
        reference: content of metrics/reference.json.

    Returns:
        Of these: `own_query` (they are their own query images), `pasted` (made of parts of their
        neighbours), `copied` (more of them are named copies than of true images), `collage` (taken
        for block-shuffled images), `colour` (the colours of two blocks do not go together),
        `seams` (borders between blocks are sharper than the rest; smoother ones are no proof, as
        blur makes them), `recall` (they leave out much of what true images show).
    """
    drawn, held_out = audit["images"], audit["held_out"]
    copied = audit["copied"]
    coherence, true = audit["coherence"], reference["coherence"]
    judge = next(name for name in scores.SHORT.values() if name in fid)
    collages = max(0.0, true["collages"] + coherence["collage_excess"])
    found = {
        "own_query": "own_query" in audit["accused"],
        "pasted": "pasted" in audit["accused"],
        # every second held-out image set the thresholds, the others are the null
        "copied": copies.above(copied["rate"], copied["null"], drawn, held_out // 2),
        "collage": copies.above(collages, true["collages"], drawn, held_out),
        "colour": coherence["colour_correlation"] < true["colour_correlation"] - COLOUR,
        "seams": any(
            coherence[name] > SEAM for name in ("ratio", "lagged", "latent_ratio", "latent_lagged")
        ),
        "recall": fid[judge]["recall"] < reference[judge]["recall"] - RECALL,
    }
    return [name for name, fails in found.items() if fails]
