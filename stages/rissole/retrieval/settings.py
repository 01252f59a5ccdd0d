"""Settings of the search index and of the neighbour tables."""

from typing import ClassVar, Literal

from rissole.core.config import Checked, Count, Positive, Rate, Section, Settings

Query = Literal["first_block", "latent", "pooled", "embedding"]
Exclude = Literal["none", "self", "group"]


class Index(Section):
    """Section `index`: the search structure over the train queries."""

    SECTION: ClassVar[str] = "index"

    kind: Literal["auto", "exact", "hashed", "tree", "faiss_flat", "faiss_ivf", "faiss_hnsw"]
    exact_below: Count
    tree_above: Count
    leaves: Positive | None
    searched: Rate
    reorder: Positive
    part_mb: Positive


class Retrieval(Checked):
    """One neighbour table: what is looked up, how many are kept, what is never kept."""

    k: Positive
    query: Query | Literal["random"]
    exclude: Exclude
    share: Rate


class PartialRetrieval(Checked):
    """An entry of `retrievals`: what it leaves out, the knobs at the top say."""

    k: Positive | None = None
    query: Query | Literal["random"] | None = None
    exclude: Exclude | None = None
    share: Rate = 1.0


def find_retrieval(settings: Settings, name: str) -> Retrieval:
    """One neighbour table; what it leaves out, the knobs at the top say."""
    own = settings.entry("retrievals", name, PartialRetrieval)
    return Retrieval(
        k=own.k or settings.k,
        query=own.query or settings.query,
        exclude=own.exclude or settings.exclude,
        share=own.share,
    )
