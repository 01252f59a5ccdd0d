"""The pages that the tables stand on, with what is needed to read them."""

from rissole.denoiser.settings import Variant
from rissole.judging import scores
from rissole.results import claims, tables
from rissole.results.claims import Claim
from rissole.results.measurements import Results, numbers

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
SPREAD = (
    "Figures are means over the rows that differ in seeds only. A spread is the standard deviation"
    " over these, pooled over both rows (or over all rows with seeds, where neither has them), and"
    " widened where few seeds tell it: 6.5-fold for a single pair. *No* means that the figures do"
    " not show it, not that the opposite holds; `within` means not told apart."
)
OBJECTIONS = (
    "Objections: `own_query`, the images are their own queries; `pasted`, they are"
    " made of parts of their neighbours; `copied`, more of them are named copies than of held-out"
    " images; `collage`, a detector takes them for block-shuffled images; `colour`, the colours of"
    " two blocks do not go together; `seams`, the borders of blocks are sharper than the rest;"
    " `recall`, they leave out much of what true images show. The first two accuse a row as a"
    " whole."
)


def scores_page(results: Results, before: dict) -> str:
    """All tables of some rows.

    Args:
        results: of the rows.
        before: content of other metrics files by name; each number gets a line.
    """
    first = scores.frechet_keys(results.reference)[0]
    true = results.reference["coherence"]
    return _page(
        "# Scores",
        tables.score_table(results),
        _how_to_read(results),
        OBJECTIONS,
        "## More distances",
        tables.distance_table(results),
        "Frechet distances from val, train and reconstructed images. `infinity`: that from val"
        " extrapolated to infinitely many drawn images (with fewer images than features"
        " little is taken off). `64 axes`: above its floor, on the first principal axes of train"
        " images. `of the uncopied`: precision and recall of the images that no copy test names,"
        " against val images whose groups are not in the database.",
        "## Copies",
        tables.copies_table(results),
        "Each figure beside that of held-out images in their place. `copied`: images nearer to a"
        " train image, in whole or in a block or inside of one, than nearly all held-out images"
        " are, by those `tests` that flag at most a twentieth of these. `own query`: the nearest"
        " train image is the one behind the image (`own group`: of its group). `own neighbours`:"
        " the nearest train block belongs to an own neighbour; blurred images lean on their"
        " neighbours too, so `pasted` tells: the chance that an own neighbour stands out more in a"
        " held-out image than in a drawn one, above which nothing is pasted (0.5 for held-out"
        " images, 0 for a collage). `C_T`: far below 0, too near to train images; far above,"
        " underfit. `sources`: train images that the blocks of an image are nearest to. `rank 1`:"
        " of the blocks nearest to an own neighbour, the share nearest to the first. `swapped`,"
        " `permuted`, `dropped`: how far an image moves when its neighbours do, in units of the"
        " distance of two images.",
        "## Seams and coherence",
        tables.coherence_table(results),
        "Seam figures are ratios to the VQ-GAN's reconstructions of val images: 1 is no seam, below"
        " 1 a smoothed one. `lagged` looks across a wider gap, which smoothing does not hide."
        " `rank`: of the border among all offsets, by how it stands out. `colour`: correlation of"
        f" the mean colours of two blocks, {true['colour_correlation']:.2f} in val images and"
        f" {true['colour_correlation_shuffled']:.2f} when their blocks are shuffled."
        " `collages`: share taken for block-shuffled images by a detector that has never seen a"
        " drawn one, less that of val images.",
        "## Cost",
        tables.cost_table(results),
        "Parameters are those of the denoiser that receive a gradient. GFLOP are the denoiser's.",
        "## The stages before",
        tables.leaves_table(before),
        "## The paper's figures",
        "As printed in its table 1: FID, on other images, by another protocol. Not comparable with"
        f" our {first}; only the order of the rows is. It contradicts itself:",
        "\n".join(f"- {sentence}" for sentence in CONTRADICTIONS),
        tables.paper_table(results),
    )


def ablations_page(
    results: Results,
    members: dict[str, list[str]],
    neighbours: dict[str, dict],
    variants: dict[str, dict],
) -> str:
    """The ablations side by side.

    Args:
        results: of all rows in them.
        members: entries of each table.
        neighbours: content of metrics/neighbours/<table>.json by table.
        variants: of all rows, as they were written; those with keys that this version does not know
            are left out of the table of systems.
    """
    rows = numbers(results)
    systems = [claims.runs(rows, entry)[0] for entry in members.get("table_1", [])]
    known = {
        row: Variant.model_validate(variants[row])
        for row in systems
        if variants[row].keys() <= Variant.model_fields.keys()
    }
    beside = [
        part
        for title, entries in members.items()
        for part in (f"## {title}", tables.ablation_table(entries, rows))
    ]
    return _page(
        "# Ablations",
        "Mean and standard deviation over the seeds; never the best of them. Seeds are those of the"
        " training and of the noise. But for `table_1` and `released`, a row"
        " differs from `rissole` in the one thing that it is named for. `exclude_group` differs"
        " only where images have groups. Colours and collages are those of the main pipeline's"
        " blocks, seams and copies those of a row's own.",
        *beside,
        *(_systems(known, results) if known else ()),
        "## The neighbour tables",
        tables.neighbour_table(neighbours),
        "`never retrieved`: share of the train images that are nobody's neighbour. `largest hub`:"
        " of how many train images the most popular one is a neighbour. `own group`: share of the"
        " neighbours that are of one's own group.",
    )


def _systems(variants: dict[str, Variant], results: Results) -> tuple[str, ...]:
    first = scores.frechet_keys(results.reference)[0]
    return (
        "## Systems",
        tables.systems_table(variants, results),
        "What the rows of table_1 are, and cost. `calls in turn` are those of the denoiser that"
        " wait for each other; GFLOP are its own, the first stage's left out.",
        "## The paper's table 1",
        tables.paper_table(results),
        f"Its FIDs, of other images by another protocol, beside our {first}: not comparable but for"
        " the order of the rows.",
    )


def claims_page(rows: dict[str, dict], asserted: list[Claim]) -> str:
    """The claims about some rows, of which the headline numbers are given, and what holds."""
    return _page("# What the numbers say", tables.claims_table(rows, asserted), SPREAD)


def _page(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def _how_to_read(results: Results) -> str:
    reference = results.reference
    first, second = scores.frechet_keys(reference)
    images = reference["images"]
    floors = {tables.tenths(of["fid"][first]["floor"]) for of in results.controls.values()}
    of = {name: tables.tenths(distance) for name, distance in reference[first].items()}
    return (
        "Lower is better, but for precision, recall and coverage."
        f" {first} is the Frechet distance of {images['drawn']} drawn images from {images['val']:,}"
        f" val images, in the features of one network; {second} in those of a second."
        f" {'' if first == 'fid' else f'{first} is not FID, nor comparable with one. '}"
        f"As many true train images score {of['floor']}, the floor ({of['floor_by_formula']} by the"
        " formula for Gaussian features). Copies of train images score like true ones, so rows are"
        " ranked by `uncopied`: the distance above that floor of those images that no copy test"
        " names; a row that is accused of copying as a whole, or whose blocks no test can tell from"
        " copies, has none. `against reconstructions` takes the VQ-GAN's reconstructions of the val"
        " images for the truth, which hides what the VQ-GAN loses: they are"
        f" {of['reconstructed']} away from the val images. Latents of true train images, decoded,"
        f" score {of['perfect']} against the val images and {of['perfect_reconstructed']} against"
        " their reconstructions: the best that a row can hope for. `kernel` is the kernel distance"
        " from disjoint blocks with its 95 % interval. Rows in italics were trained by nobody: true"
        " images and cheats made of them. All of these are scored against one half of the val"
        f" images (floor: {' or '.join(sorted(floors))}); `held_out`, `reconstructed` and half of"
        " `half_copies` show the other half."
    )
