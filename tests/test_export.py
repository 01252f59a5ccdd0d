"""Of an exported model what needs none: its modules, and the leak check on made-up latents."""

import toy
from rissole.export import bundle, leaks, modules
from rissole.export.database import Database
from rissole.export.pipeline import RissolePipeline
from rissole.harness.errors import InputError
from rissole.latent.latents import take
from rissole.retrieval.settings import Retrieval

import numpy as np
import pytest
import torch


def test_what_is_not_a_folder_is_not_looked_for_on_a_hub(tmp_path):
    with pytest.raises(InputError, match="hf download"):
        RissolePipeline.from_pretrained("somebody/rissole")


def test_modules_are_followed_through_functions_and_packages(tmp_path):
    sources = {
        path.relative_to(modules.STAGES).as_posix() for path in modules.needed(bundle.PIPELINE)
    }
    assert {"rissole/__init__.py", "rissole/core/__init__.py"} <= sources
    assert {"rissole/core/config.py", "rissole/drawing/samplers.py"} <= sources
    assert not any(name.startswith(("rissole/results", "rissole/speed")) for name in sources)
    assert not {"rissole/export/bundle.py", "rissole/export/card.py"} & sources
    source = tmp_path / "a.py"
    source.write_text("import json\nimport PIL.Image\ndef f():\n    import torchvision\n")
    pins = tmp_path / "requirements.txt"
    pins.write_text("pillow==1.2.3 # a reason\n")
    assert modules.requirements([source], pins) == ["pillow==1.2.3"]


# The leak check, on latents of random codes: none is near to another.


@pytest.fixture(scope="module")
def check():
    """The check of a folder of 60 made-up images, each told four others."""
    latents = toy.latents(60)
    near = torch.randint(59, (60, 4), generator=torch.Generator().manual_seed(1))
    near += near >= torch.arange(60)[:, None]
    order = np.random.default_rng(0).permutation(60)
    table = Retrieval(k=4, query="latent", exclude="self", share=1.0)
    database = Database(latents, latents, table, 2, order, near[order])
    return leaks.LeakCheck(database, 2), database


def test_new_images_of_the_same_kind_are_no_leak(check):
    found = check[0](toy.latents(40, seed=5).codes.numpy(), np.arange(40))
    assert found.warnings == [] and found.copied < 0.2 and found.own_query < 0.2


def test_images_that_are_their_own_queries_are_a_leak(check):
    queries = check[1].queries[:20]
    found = check[0](take(check[1].latents.codes, torch.from_numpy(queries)).numpy(), queries)
    assert found.own_query == 1 and found.own_query_chance < 0.2
    assert found.named == list(range(20))
    assert len(found.warnings) == 2 and "the query leaks" in found.warnings[0]


@pytest.mark.parametrize("copied", [slice(None), slice(0, 4)], ids=["whole", "upper half"])
def test_copies_of_neighbours_or_of_blocks_of_them_are_named(check, copied):
    codes = toy.latents(20, seed=5).codes.numpy()
    told = check[1].neighbours[:8, 1].numpy()
    codes[:8, copied] = check[1].latents.codes.numpy()[told, copied]
    found = check[0](codes, check[1].queries[:20])
    assert set(range(8)) <= set(found.named) and len(found.named) < 13
    assert "named copies" in found.warnings[-1]


def test_a_blend_of_a_single_neighbour_can_tell_nothing(check):
    database = check[1]
    one = Database(
        database.latents,
        database.told,
        database.retrieval,
        2,
        database.queries,
        database.neighbours[:, :1],
    )
    found = leaks.LeakCheck(one, 2)(database.latents.codes.numpy()[:10], None)
    assert found.tests == 0 and found.named == [] and "no copy test can tell" in found.warnings[0]


def test_an_image_does_not_stand_in_for_itself():
    table = np.array([[1, 2], [2, 3], [1, 3], [1, 2]])
    assert leaks._stand_ins(table, np.arange(4)).tolist() == [3, 0, 0, 0]
