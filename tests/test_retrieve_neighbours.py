"""Stages build_index and retrieve_neighbours, on latents drawn at random."""

from pathlib import Path

import build_index
import retrieve_neighbours
import toy
from rissole.core import files
from rissole.latent import embeddings, latents
from rissole.latent.latents import Latents

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
PARAMS = """
threads: 1
seed: {seed}
k: 4
blocks: 2
query: first_block
exclude: self
queries: {queries}
index: {{kind: auto, exact_below: {exact_below}, tree_above: 100000, leaves: null, searched: 0.1,
  reorder: 50, part_mb: 256}}
retrievals:
  main: {{}}
  whole: {{query: latent, k: 3}}
  released: {{exclude: none}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with 80 train latents, 40 of them mirrors, and 30 val latents."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    splits = {}
    for split, n in (("train", 80), ("val", 30)):
        ids = np.random.default_rng(n).integers(-(2**63), 2**63 - 1, n)
        these = Latents(
            ids=ids,
            originals=np.tile(ids[:40], 2) if split == "train" else ids,
            groups=np.full(n, None, object),
            codes=torch.randint(50, (n, 4, 4), dtype=torch.int32),
            codebook=torch.randn(50, 3, generator=torch.Generator().manual_seed(0)),
            mean=torch.zeros(3),
            std=torch.ones(3),
        )
        splits[split] = these
        of = np.random.default_rng(n + 1).normal(size=(n, 8))
        embeddings.write(Path(f"data/embeddings/{split}-00000.parquet"), ids, of, encoder="one")
    toy.write_latents(Path("data/latents"), **splits)
    return tmp_path


def run(*names, seed=0, queries=25, exact_below=20000):
    params = PARAMS.format(seed=seed, queries=queries, exact_below=exact_below)
    Path("params.yaml").write_text(params)
    build_index.main()
    for name in names:
        retrieve_neighbours.main(name)


def read(name, split):
    table = files.read_table(Path(f"data/neighbours/{name}/{split}.parquet"))
    lists = (files.lists_array(table[column]) for column in ("neighbours", "similarities"))
    return table["id"].to_numpy(), *lists


def test_every_image_has_k_neighbours_best_first(folder):
    run("main", "whole", "released")
    for name, k in (("main", 4), ("whole", 3)):
        for split in ("train", "val"):
            ids, neighbours, similarities = read(name, split)
            assert np.array_equal(ids, latents.read(Path("data/latents"), split).ids)
            assert neighbours.shape == similarities.shape == (len(ids), k)
            assert (np.diff(similarities, axis=1) <= 0).all()
    ids, neighbours, _ = read("released", "queries")
    assert np.array_equal(neighbours[:, 0], ids)


def test_similarities_are_the_cosines_of_the_first_blocks(folder):
    run("main")
    train, val = (latents.read(Path("data/latents"), split) for split in ("train", "val"))
    ids, neighbours, similarities = read("main", "val")
    first, second = (
        part.z(torch.from_numpy(part.rows(of)))[..., :2, :2].flatten(-3)
        for part, of in ((val, ids[:, None]), (train, neighbours))
    )
    expected = torch.cosine_similarity(first, second, dim=-1)
    assert np.allclose(similarities, expected, atol=1e-6)


def test_sampling_queries_are_originals_with_the_neighbours_they_have_in_training(folder):
    run("main")
    train = latents.read(Path("data/latents"), "train")
    ids, neighbours, similarities = read("main", "queries")
    assert len(set(ids)) == len(ids) == 25
    assert np.isin(ids, train.originals).all()
    rows = train.rows(ids)
    _, of_train, with_similarities = read("main", "train")
    assert np.array_equal(neighbours, of_train[rows])
    assert np.array_equal(similarities, with_similarities[rows])


def test_the_order_of_the_queries_is_the_seeds(folder):
    orders = []
    for seed in (0, 0, 1):
        run("main", seed=seed, queries=1000)
        orders.append(read("main", "queries")[0].tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) and len(orders[0]) == 40


@pytest.mark.parametrize("exact_below, kind", [(20000, "exact"), (10, "hashed")])
def test_each_index_says_what_it_is_and_how_well_it_finds(folder, exact_below, kind):
    if kind == "hashed":
        pytest.importorskip("scann")
    run("main", "whole", exact_below=exact_below)
    metrics = files.read_json(Path("metrics/retrieval.json"))
    widths = {"first_block": 12, "latent": 48, "pooled": 48, "embedding": 8}
    assert metrics.keys() == widths.keys()
    for query, width in widths.items():
        of = metrics[query]
        assert (of["kind"], of["rows"], of["width"]) == (kind, 80, width)
        assert of["recall_at_20"] == 1 if kind == "exact" else of["recall_at_20"] > 0.9
        assert of["queries_per_second"] > 0


def test_a_second_run_writes_the_same_bytes(folder):
    digests = []
    for _ in range(2):
        run("main", "whole")
        digests.append({path: files.digest(path) for path in Path("data").rglob("*.parquet")})
    assert digests[0] == digests[1]
