"""Query vectors, search, and who may not be a neighbour."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from rissole.core import memory
from rissole.harness.errors import InputError
from rissole.latent.latents import Latents
from rissole.retrieval import index, neighbours, search, with_faiss, with_scann
from rissole.retrieval.settings import Index
from rissole.retrieval.vectors import Vectors

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
SETTINGS = Index(
    kind="auto",
    exact_below=500,
    tree_above=5000,
    leaves=None,
    searched=0.2,
    reorder=100,
    part_mb=100,
)
HASHED, TREE = (
    pytest.param(
        kind,
        marks=pytest.mark.skipif(not with_scann.installed(), reason="ScaNN has no wheel here"),
    )
    for kind in ("hashed", "tree")
)
FLAT, IVF, HNSW = (
    pytest.param(
        kind,
        marks=pytest.mark.skipif(not with_faiss.installed(), reason="FAISS is not installed here"),
    )
    for kind in ("faiss_flat", "faiss_ivf", "faiss_hnsw")
)
scann = pytest.mark.skipif(not with_scann.installed(), reason="ScaNN has no wheel here")


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(n=2000, d=24, clusters=40, seed=0):
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(clusters, d))
    return unit(centres[draw.integers(clusters, size=n)] + 0.3 * draw.normal(size=(n, d)))


def build(vectors, folder, kind="auto", blocks=1, **settings):
    """Build an index over vectors that come in blocks; open it."""
    settings = SETTINGS.model_copy(update={"kind": kind} | settings)
    measured = index.build(
        np.array_split(vectors[:], blocks), vectors.shape, settings, folder, vectors[:50]
    )
    assert measured["kind"] == kind or kind == "auto"
    assert 0.8 < measured["recall_at_20"] <= 1 or len(vectors) <= 200
    return index.open(folder, vectors)


def some(n=60, codes=30, mirrors=False, seed=0):
    """Random latents; with mirrors, rows n/2 and later mirror the rows before them."""
    torch.manual_seed(seed)
    ids = np.arange(n) * 7 + 1000 * (1 + seed)
    return Latents(
        ids=ids,
        originals=np.tile(ids[: n // 2], 2) if mirrors else ids,
        groups=np.full(n, None, object),
        codes=torch.randint(codes, (n, 4, 4), dtype=torch.int32),
        codebook=torch.randn(codes, 3, generator=torch.Generator().manual_seed(9)),
        mean=torch.zeros(3),
        std=torch.ones(3),
    )


def look_up(database, queries, k, exclude, opened=None):
    vectors, of_queries = (Vectors(part, "latent", 2) for part in (database, queries))
    among = opened(vectors) if opened else search.Exact(vectors)
    return neighbours.find(among, database, queries, of_queries, k, exclude)


def test_the_first_block_is_the_upper_left_one_at_length_1():
    these = some()
    found = Vectors(these, "first_block", 2)[np.array([5, 2])]
    expected = these.z(torch.tensor([5, 2]))[:, :, :2, :2].reshape(2, -1).numpy()
    assert np.allclose(found, unit(expected), atol=1e-6)


def test_the_pooled_query_sees_means_over_squares():
    these = replace(some(), codes=some().codes.repeat(1, 2, 2))
    found = Vectors(these, "pooled", 2)[np.array([5, 2])]
    z = these.z(torch.tensor([5, 2])).reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    assert np.allclose(found, unit(z.reshape(2, -1).numpy()), atol=1e-6)


def test_the_latent_query_sees_all_blocks():
    these = some()
    found = Vectors(these, "latent", 2)[np.array([5, 2])]
    assert np.allclose(found, unit(these.z(torch.tensor([5, 2])).reshape(2, -1).numpy()), atol=1e-6)


@pytest.mark.parametrize("block", [7, 100, 16384])
def test_exact_search_finds_what_sorting_everything_finds(monkeypatch, block):
    monkeypatch.setattr(search, "BLOCK", block)
    vectors, queries = clustered(n=300), clustered(n=600, seed=1)
    rows, similarities = search.Exact(vectors).search(queries, 10)
    oracle = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    expected = np.argsort(-oracle, axis=1, kind="stable")[:, :10]
    assert np.mean(rows == expected) > 0.999  # two may swap in a float32's last bit
    assert np.allclose(similarities, np.take_along_axis(oracle, rows, 1), atol=1e-6)
    assert rows.dtype == np.int64 and similarities.dtype == np.float32


@pytest.mark.parametrize("block", [3, 16384])
def test_of_equally_similar_rows_exact_search_takes_the_lowest(monkeypatch, block):
    monkeypatch.setattr(search, "BLOCK", block)
    vectors = np.eye(4, dtype=np.float32)[[2, 0, 1, 0, 0, 3, 1, 0]]
    rows, _ = search.Exact(vectors).search(np.eye(4, dtype=np.float32)[:2], 6)
    assert rows.tolist() == [[1, 3, 4, 7, 0, 2], [2, 6, 0, 1, 3, 4]]


@pytest.mark.parametrize("kind", [HASHED, TREE, FLAT, IVF, HNSW])
def test_every_kind_finds_nearly_what_exact_search_finds_and_survives_moving(tmp_path, kind):
    vectors, queries = clustered(), clustered(seed=0)[:200]
    rows, similarities = build(vectors, tmp_path / "a" / "latent", kind).search(queries, 20)
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = index.open(tmp_path / "b" / "latent", vectors).search(queries, 20)
    assert np.array_equal(moved[0], rows) and np.array_equal(moved[1], similarities)
    expected, _ = search.Exact(vectors).search(queries, 20)
    hits = (rows[:, :, None] == expected[:, None]).sum()
    assert hits / expected.size > 0.9
    cosines = np.einsum("qd,qnd->qn", queries, vectors[rows])
    assert np.allclose(similarities, cosines, atol=1e-5)


@pytest.mark.parametrize("kind", ["exact", HASHED, TREE, FLAT, IVF, HNSW])
def test_what_a_search_does_not_find_is_minus_one(tmp_path, kind):
    vectors = clustered(n=100)
    rows, similarities = build(vectors, tmp_path / "latent", kind).search(vectors[:30], 120)
    assert rows.shape == similarities.shape == (30, 120)
    missing = rows < 0
    assert missing[:, 100:].all()
    assert (rows[missing] == -1).all() and (similarities[missing] == -np.inf).all()
    assert np.isfinite(similarities[~missing]).all()
    for row, gone in zip(rows, missing, strict=True):
        assert len(set(row[~gone])) == (~gone).sum()
    if kind == "tree":
        assert missing[:, :100].any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HASHED, TREE, FLAT, IVF, HNSW])
def test_an_index_built_by_another_process_is_equal_byte_for_byte(tmp_path, kind):
    build(clustered(), tmp_path / "a" / "latent", kind)
    code = "import sys, pathlib, test_retrieval as t\n"
    code += "t.build(t.clustered(), pathlib.Path(sys.argv[1]), sys.argv[2])"
    words = [sys.executable, "-c", code, tmp_path / "b" / "latent", kind]
    subprocess.run(words, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "latent").rglob("*.*")}
        for name in ("a", "b")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) >= 2


@scann
@pytest.mark.parametrize("rows, kind", [(499, "exact"), (500, "hashed"), (5000, "tree")])
def test_the_kind_follows_the_number_of_rows(tmp_path, rows, kind):
    build(clustered(n=rows, d=4), tmp_path / "latent")
    assert f'"kind": "{kind}"' in (tmp_path / "latent" / "index.json").read_text()


@pytest.mark.parametrize("kind", [HASHED, TREE, FLAT, IVF, HNSW])
def test_an_index_in_parts_finds_what_exact_search_finds(tmp_path, kind):
    """Even parts of at most 600 rows, from blocks that end elsewhere."""
    vectors, queries = clustered(), clustered(seed=0)[:200]
    found = build(vectors, tmp_path / "latent", kind, blocks=7, part_mb=600 * 24 * 4 / 1e6)
    assert sorted(found.parts) == [0, 500, 1000, 1500]
    rows, similarities = found.search(queries, 20)
    expected, _ = search.Exact(vectors).search(queries, 20)
    assert (rows[:, :, None] == expected[:, None]).sum() / expected.size > 0.8
    assert (np.diff(similarities, axis=1) <= 0).all()
    cosines = np.einsum("qd,qnd->qn", queries, vectors[rows])
    assert np.allclose(similarities, cosines, atol=1e-5)


@scann
def test_parts_of_an_index_built_by_workers_of_their_own_are_those_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vectors = clustered()
    settings = SETTINGS.model_copy(update={"kind": "hashed", "part_mb": 600 * 24 * 4 / 1e6})

    def over(folder):
        return [vectors], vectors.shape, settings, Path(folder) / "latent"

    alone = index.build(*over("alone"), vectors[:50])
    for part in ("2/3", "3/3", "1/3"):
        list(index.build_parts(*over("workers"), "made of this", part))
    written = {path: path.stat().st_mtime_ns for path in Path("workers").rglob("*.*")}
    together = index.build(*over("workers"), vectors[:50], "made of this")
    assert {p: p.stat().st_mtime_ns for p in written} == written
    assert together["recall_at_20"] == alone["recall_at_20"]
    contents = [
        {path.relative_to(of): path.read_bytes() for path in Path(of).rglob("*.*")}
        for of in ("alone", "workers")
    ]
    assert contents[0] == contents[1] and len(contents[0]) > 8


@scann
def test_a_lost_part_of_an_index_is_built_again_and_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vectors, folder = clustered(), Path("latent")
    settings = SETTINGS.model_copy(update={"kind": "hashed", "part_mb": 1100 * 24 * 4 / 1e6})
    over = [vectors], vectors.shape, settings, folder, vectors[:50], "made of this"
    index.build(*over)
    lost, kept = sorted(folder.glob("*/"))
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    shutil.rmtree(lost)
    index.build(*over)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert len(list(lost.iterdir())) == len(before)
    index.build(*over[:-1], "made of that")
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} != before


def test_exact_search_that_does_not_fit_in_memory_finds_the_same(monkeypatch):
    these = some()
    held, made = (search.Exact(Vectors(these, "latent", 2)) for _ in range(2))
    queries = Vectors(some(seed=1), "latent", 2)[:]
    expected = held.search(queries, 10)
    monkeypatch.setattr(memory, "free", lambda: 100)
    monkeypatch.setattr(search, "BLOCK", 7)
    found = made.search(queries, 10)
    assert held._held is not None and made._held is None
    assert np.array_equal(found[0], expected[0])
    assert np.allclose(found[1], expected[1], atol=1e-6)


def test_exact_search_takes_over_where_scann_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(with_scann, "installed", lambda: False)
    assert isinstance(build(clustered(n=600), tmp_path / "latent"), search.Exact)


@pytest.mark.parametrize(
    "library, kind, said",
    [
        (with_scann, "hashed", "index.kind is 'hashed': ScaNN"),
        (with_faiss, "faiss_ivf", "index.kind is 'faiss_ivf': FAISS.*pip install faiss-cpu"),
    ],
)
def test_an_index_asked_for_by_name_needs_its_library(library, kind, said, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "installed", lambda: False)
    with pytest.raises(InputError, match=said):
        build(clustered(n=600), tmp_path / "latent", kind)


def test_recall_counts_no_row_that_is_not_there():
    truth = np.array([[0, 1, -1, -1]])  # as there are but two
    assert search.recall(np.array([[1, 0, -1, -1]]), truth) == 1
    assert search.recall(np.array([[1, 5, -1, -1]]), truth) == 0.5


def test_without_exclusion_an_image_is_its_own_first_neighbour():
    these = some()
    ids, similarities = look_up(these, these, 5, "none")
    assert np.array_equal(ids[:, 0], these.ids)
    assert np.allclose(similarities[:, 0], 1, atol=1e-6)


@pytest.mark.parametrize("exclude", ["self", "group"])
def test_an_image_is_never_its_own_neighbour(exclude):
    these = some()
    ids, similarities = look_up(these, these, 59, exclude)
    expected = [sorted(set(these.ids) - {own}) for own in these.ids]
    assert np.sort(ids, axis=1).tolist() == expected
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_neither_is_its_mirror_a_twin_of_that_nor_that_twin_s_mirror():
    these = some(mirrors=True)
    these.codes[7] = these.codes[30 + 2].clone()  # an image that is the mirror of image 2
    ids, _ = look_up(these, these, 56, "self")
    kin = [2, 7, 32, 37]
    assert not np.isin(ids[kin], these.ids[kin]).any()


def test_a_val_image_is_not_given_its_duplicate():
    database, val = some(), some(n=10, seed=1)
    val.codes[3] = database.codes[44].clone()
    assert look_up(database, val, 5, "none")[0][3, 0] == database.ids[44]
    assert database.ids[44] not in look_up(database, val, 59, "self")[0][3]


def test_nobody_of_ones_group_is_a_neighbour_but_those_without_a_group_are():
    these = replace(some(), groups=np.array((["a"] * 9 + ["b"] + [None] * 5) * 4, object))
    ids, _ = look_up(these, these, 24, "group")
    for own, found in zip(these.groups, these.groups[these.rows(ids)], strict=True):
        assert own is None or own not in found
    ungrouped = [row for row, group in enumerate(these.groups) if group is None]
    assert np.isin(ids[ungrouped], these.ids[ungrouped]).any()


def test_a_group_larger_than_what_is_fetched_is_searched_exactly(monkeypatch):
    monkeypatch.setattr(neighbours, "SPARE", 2)
    these = replace(some(), groups=np.array(["a"] * 40 + ["b"] * 20, object))
    _, expected = look_up(these, these, 20, "none")
    ids, similarities = look_up(these, these, 20, "group")
    assert (these.groups[these.rows(ids)] != these.groups[:, None]).all()
    z = Vectors(these, "latent", 2)[:]
    oracle = np.where(these.groups == these.groups[:, None], -np.inf, z @ z.T)
    assert np.allclose(similarities, -np.sort(-oracle, axis=1)[:, :20], atol=1e-6)


@pytest.mark.parametrize("kind", [HASHED, TREE, FLAT, IVF, HNSW])
def test_queries_that_a_search_fails_are_searched_exactly(tmp_path, kind):
    these = some(n=120)
    ids, similarities = look_up(
        these, these, 110, "self", lambda vectors: build(vectors, tmp_path / "latent", kind)
    )
    assert np.isin(ids, these.ids).all() and np.isfinite(similarities).all()
    assert all(len(set(row)) == 110 for row in ids)


def test_the_outcome_does_not_depend_on_how_queries_are_chunked(monkeypatch):
    these = some()
    whole = look_up(these, these, 10, "self")
    monkeypatch.setattr(search, "CHUNK", 7)
    monkeypatch.setattr(neighbours, "TOGETHER", 11)
    cut = look_up(these, these, 10, "self")
    assert np.array_equal(whole[0], cut[0])
    assert np.allclose(whole[1], cut[1], atol=1e-6)


@pytest.mark.parametrize("exclude, k, needed", [("none", 61, 61), ("self", 60, 61)])
def test_too_few_images_for_k_is_an_error_that_says_how_many_are_needed(exclude, k, needed):
    these = some()
    with pytest.raises(InputError, match=f"k is {k}.*{needed} train rows"):
        look_up(these, these, k, exclude)


def test_the_share_of_neighbours_of_one_s_own_group_is_counted():
    groups, rows = np.array([4, 4, 5]), np.array([[1, 2], [2, 0], [0, 1]])
    assert neighbours.own_group(rows, groups) == pytest.approx(2 / 6, abs=1e-4)


def test_an_index_over_other_vectors_or_latents_is_refused(tmp_path):
    build(clustered(n=100), tmp_path / "latent", "exact")
    with pytest.raises(InputError, match="built over 100 vectors of width 24, not 99"):
        index.open(tmp_path / "latent", clustered(n=99))
    with pytest.raises(InputError, match=r"index\.json: built over other latents .*dvc repro"):
        index.open(tmp_path / "latent", clustered(n=100, seed=1), latents="theirs")
