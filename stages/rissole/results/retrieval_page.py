"""The page about what is retrieved, by each thing that images are looked up by."""

from rissole.results import tables
from rissole.results.measurements import Results

import pandas as pd

RANKS = (1, 2, 5, 10, 20, 50)
HOW_TO_READ = (
    "Train images are looked up among the train images, none its own neighbour. `agreement` is the"
    " mean cosine of two neighbours of one image, `similar at r` that of an image to its neighbour"
    " of rank r: both of the encoder's embeddings, whatever was looked up by, so that the lines"
    " compare (and `embedding` is favoured). `skew` is that of how often an image is a neighbour"
    " (0: all about alike); `largest hub` of how many images one is; `never` the share that nobody"
    " retrieves. `same ... at r` is the share of the nearest r neighbours with the label or group"
    " of their image."
)
SAMPLES = (
    "Rank correlations (Spearman) over the samples of a row, of how near a sample is to its nearest"
    " val images in the first judge's features: with how much its neighbours agree, and with how"
    " similar they are to the query (cosines of latents). Positive: drawn better where they are"
    " more alike. `chance` is what 95 % of shuffled pairs stay below."
)


def page(found: dict, results: Results) -> str:
    """The page as Markdown.

    Args:
        found: by stage judge_retrieval.
        results: of the rows.
    """
    return "\n\n".join(
        [
            "# What is retrieved",
            f"{found['queries']:,} of {found['rows']:,} train images, k = {found['k']}.",
            retrieval_table(found),
            HOW_TO_READ,
            "## Do neighbours that agree make better images?",
            samples_table(results),
            SAMPLES + "\n",
        ]
    )


def retrieval_table(found: dict) -> str:
    """A line for each thing that images are looked up by."""
    lines = []
    for query, of in found["by"].items():
        line = {"looked up by": query, "agreement": f"{of['agreement']:.3f}"}
        shown = [rank for rank in RANKS if rank <= found["k"]]
        line |= {f"similar at {rank}": f"{of['by_rank'][rank - 1]:.3f}" for rank in shown}
        line |= {
            "skew": f"{of['skew']:.1f}",
            "largest hub": f"{of['largest_hub']:,}",
            "never": f"{of['never_retrieved']:.0%}",
        }
        for kind, at in of["precision"].items():
            ranks = [rank for rank in (1, 5, found["k"]) if f"at_{rank}" in at]
            line |= {f"same {kind} at {rank}": f"{at[f'at_{rank}']:.0%}" for rank in ranks}
            line[f"{kind} by chance"] = f"{at['chance']:.0%}"
        lines.append(line)
    return tables.markdown(pd.DataFrame(lines), 1)


def samples_table(results: Results) -> str:
    """A line for each row that retrieves."""
    lines = [
        {
            "row": row,
            **{name: f"{of[name]['rho']:+.2f}" for name in ("agreement", "similarity")},
            "chance": f"{of['agreement']['chance']:.2f}",
        }
        for row, of in results.fid.items()
        if "agreement" in of
    ]
    if not lines:
        return "No row here retrieves."
    return tables.markdown(pd.DataFrame(lines), 1)
