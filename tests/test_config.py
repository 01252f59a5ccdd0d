"""params.yaml: what it says is what the stages get, and what cannot work is refused in one line."""

import json
import shutil
from pathlib import Path

from rissole import params
from rissole.core import config
from rissole.denoiser.settings import LDM, find_variant, variant_ldm
from rissole.drawing.settings import Row, Sample, find_row, row_sample
from rissole.first_stage.settings import VQGANSettings
from rissole.harness.errors import InputError
from rissole.retrieval.settings import PartialRetrieval, find_retrieval
from tiny import ROOT

import pytest
import yaml
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides

PARAMS = ROOT / "params.yaml"
CONTENT = yaml.safe_load(PARAMS.read_text())


def edited(tmp_path: Path, *overrides: str) -> Path:
    """params.yaml as `dvc exp run -S` leaves it."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text())
    apply_overrides(path, list(overrides))
    return path


def read(tmp_path: Path, *overrides: str) -> config.Settings:
    """What becomes of that, with JSON in between, which is edited at ten times the speed."""
    path = tmp_path / "params.json"
    path.write_text(json.dumps(CONTENT))
    apply_overrides(path, list(overrides))
    return params.read(path)


@pytest.mark.parametrize("preset", CONTENT["presets"])
def test_every_preset_gives_every_section_variant_and_row_with_the_ablations(preset, tmp_path):
    path = edited(tmp_path, f"preset={preset}")
    (tmp_path / config.ABLATIONS).parent.mkdir(parents=True)
    shutil.copy(ROOT / config.ABLATIONS, tmp_path / config.ABLATIONS)
    settings = params.read(path)
    for section in params.SECTIONS:
        assert isinstance(settings.section(section), section)
    for name in params.entries(settings, "variants"):
        assert isinstance(variant_ldm(settings, name), LDM)
    for name in params.entries(settings, "rows"):
        assert isinstance(row_sample(settings, name), Sample)
    assert find_variant(settings, "ablations/patch_dm").collage == 2


def test_a_preset_is_laid_over_the_defaults(tmp_path):
    defaults = ["defaults.ldm.steps=5", "defaults.ldm.heads=2"]
    settings = read(tmp_path, "presets.quick.ldm.steps=3", *defaults)
    assert (settings.section(LDM).steps, settings.section(LDM).heads) == (3, 2)
    settings = read(tmp_path, "~presets.quick.ldm.steps", *defaults)
    assert settings.section(LDM).steps == 5


def test_a_section_at_the_top_is_laid_over_the_preset(tmp_path):
    settings = read(tmp_path, "presets.quick.ldm.batch=12", "+ldm.steps=2000", "+ldm.heads=2")
    ldm = settings.section(LDM)
    assert (ldm.steps, ldm.heads, ldm.batch) == (2000, 2, 12)
    assert settings.under("folder").section(LDM).steps == 2000


def test_a_mapping_in_a_section_is_replaced_as_a_whole(tmp_path):
    settings = read(tmp_path, "+vqgan.quantiser={kind: fsq, levels: [4, 4]}")
    assert settings.section(VQGANSettings).quantiser.levels == [4, 4]
    assert settings.under("celeba").section(VQGANSettings).quantiser.kind == "fsq"


def test_a_key_that_a_section_at_the_top_has_not_got_is_to_be_appended(tmp_path):
    """`dvc exp run -S ldm.steps=2000` would else be a wish that a preset overrules in silence."""
    with pytest.raises(InvalidArgumentError) as refused:
        edited(tmp_path, "ldm.steps=2000")
    assert "To append to your config use +ldm.steps=2000" in str(refused.value.__cause__)


def test_a_variant_is_laid_over_the_section_at_the_top(tmp_path):
    settings = read(tmp_path, "+ldm.steps=7", "+variants.rdm.ldm.steps=9")
    assert variant_ldm(settings, "rdm").steps == 9
    assert variant_ldm(settings, "rissole_latent").steps == 7


def test_a_row_is_laid_over_the_section_at_the_top(tmp_path):
    of_row = "+rows.rdm.sample={steps: 10, sampler: dpmsolver++}"
    settings = read(tmp_path, "+sample.steps=50", of_row)
    of, other = row_sample(settings, "rdm"), row_sample(settings, "rissole_latent")
    assert (of.steps, of.sampler, of.images) == (10, "dpmsolver++", 500)
    assert other == settings.section(Sample) and other.steps == 50


def test_a_row_names_its_weights_and_what_they_are_told(tmp_path):
    settings = read(tmp_path, "+rows.rissole.seed=5")
    row = find_row(settings, "rissole")
    assert row == Row(variant="rissole", context="neighbours/main", seed=5)
    assert find_row(settings, "released").may_copy


def test_a_seed_in_the_name_of_an_ablation_is_that_of_its_variant(tmp_path):
    path = edited(tmp_path)
    (tmp_path / config.ABLATIONS).parent.mkdir(parents=True)
    shutil.copy(ROOT / config.ABLATIONS, tmp_path / config.ABLATIONS)
    settings = params.read(path)
    row = find_row(settings, "ablations/whole/1")
    assert row.variant == "ablations/whole/1"
    assert find_variant(settings, row.variant).seed == 1
    assert find_variant(settings, "ablations/whole").seed == settings.seed == 0


def test_a_neighbour_table_takes_over_the_knobs_it_leaves_out(tmp_path):
    settings = read(tmp_path, "k=9", "exclude=group")
    latent = find_retrieval(settings, "latent")
    assert (latent.k, latent.query, latent.exclude) == (9, "latent", "group")
    assert find_retrieval(settings, "rdm").k == 4
    assert find_retrieval(settings, "released").exclude == "none"


def test_variants_have_the_blocks_and_the_seed_at_the_top_unless_they_say_otherwise(tmp_path):
    settings = read(tmp_path, "blocks=4", "seed=7", "+variants.rdm.seed=1")
    rissole, rdm = find_variant(settings, "rissole"), find_variant(settings, "rdm")
    assert (rissole.blocks, rissole.seed) == (4, 7)
    assert (rdm.blocks, rdm.seed) == (1, 1)


def test_a_small_number_as_dvc_writes_it_is_a_number(tmp_path):
    path = edited(tmp_path, "presets.quick.ldm.learning_rate=1e-5")
    assert "1e-05" in path.read_text()
    assert params.read(path).section(LDM).learning_rate == pytest.approx(1e-5)


FAULTS = {
    "+kk=5": ("kk", "did you mean 'k'"),
    "k=0": ("k", "0", "greater than 0"),
    "k=4000": ("k", "4000", "lower k"),
    "query=first": ("query is 'first'", "first_block"),
    "preset=quik": ("preset", "'quik'", "did you mean 'quick'"),
    "blocks=3": ("blocks", "3", "[2, 4, 8]"),
    "blocks=1": ("blocks is 1", "[2, 4, 8]"),  # nothing to compare
    "+variants.rissole.blocks=16": ("variants.rissole.blocks", "16", "[1, 2, 4, 8]"),
    "presets.quick.sample.images=9": ("presets.quick.sample.images", "9", "10"),
    "+vqgan.stepz=1": ("vqgan.stepz", "did you mean 'steps'"),
    "+defaults.vqgan.stepz=1": ("defaults.vqgan.stepz", "did you mean 'steps'"),
    "+defaults.vqgann={}": ("defaults.vqgann", "did you mean 'vqgan'"),
    "+presets.celeba.ldm.stepz=1": ("presets.celeba.ldm.stepz", "did you mean 'steps'"),
    "+ldm.steps=0": (" ldm.steps", "0"),
    "presets.quick.ldm.widths=[48,50]": ("presets.quick.ldm.widths", "[48, 50]", "16"),
    "presets.quick.data.source=celeba": ("data.root", "None", "path"),
    "+data.groups='(a)(b)'": ("data.groups", "'(a)(b)'", "exactly one"),
    "+data.size=66": ("data.size", "66", "multiple of 4"),
    "defaults.vqgan.quantiser.kind=fsqq": ("vqgan.quantiser", "fsq"),
    "defaults.vqgan.quantiser.levels=[64,64,64]": ("vqgan.quantiser.levels", "65,536"),
    "+vqgan.perceptual=lpips": ("vqgan.lpips_weights", "None", "path"),
    "+vqgan.discriminator_start=0.9": ("vqgan.discriminator_start", "0.9", "adversarial_start"),
    "~defaults.vqgan.l1": ("defaults.vqgan.l1", "missing"),
    "presets.quick.sample.sampler=heun": ("sample.sampler", "'heun'", "'lognormal'"),
    "presets.quick.sample.steps=30": ("sample.steps", "30", "20, 25, 40"),
    "+sample.images=60000": ("sample.images", "60000", "raise queries"),
    "presets.quick.sample.images=4900": ("sample.images", "4900", "4000 train images"),
    "retrievals.rdm.k=4990": ("retrievals.rdm.k", "4990", "lower"),
    "+variants.rissole.network=ddpmpp": ("variants.rissole.network", "ddpmpp"),
    "+variants.rissole.network=patch_dm": ("variants.rissole.collage", "no less than 1"),
    "variants.rdm.context=neighbours/rmd": ("variants.rdm.context", "'rmd'", "'rdm'"),
    "variants.rdm.context=neigbours/rdm": ("variants.rdm.context", "'neigbours/rdm'", "latents"),
    "variants.rdm.context=neighbours/main": ("variants.rdm.context", "neighbours/main", "tokens"),
    "+variants.rissole.halo=2": ("variants.rissole.halo", "2", "image"),
    "rows.rdm.variant=rmd": ("rows.rdm.variant", "'rmd'", "did you mean 'rdm'"),
    "rows.rdm.context=latents": ("rows.rdm.context", "'latents'", "retrieves if its variant does"),
    "+rows.rdm.sample.steps=30": ("rows.rdm.sample.steps", "30", "20, 25, 40"),
    "+variants.rdm.ldm.timesteps=25": ("sample.steps", "10", "timesteps 25", "1, 5, 25"),
    "+rows.rdm.may_copi=true": ("rows.rdm.may_copi", "did you mean 'may_copy'"),
    "~rows.rdm.variant": ("rows.rdm.variant", "missing"),
}


@pytest.mark.parametrize("override", FAULTS)
def test_a_fault_is_named_by_key_value_and_mend(override, tmp_path, bad_inputs):
    with pytest.raises(InputError) as fault:
        read(tmp_path, override)
    text = str(fault.value)
    assert "\n" not in text
    for part in FAULTS[override]:
        assert part in text
    bad_inputs.add(("params", override))


def test_a_fault_among_the_ablations_names_their_file(tmp_path):
    path = edited(tmp_path)
    (tmp_path / config.ABLATIONS).parent.mkdir(parents=True)
    (tmp_path / config.ABLATIONS).write_text("ablations: {rows: {a: {variant: b, context: c}}}")
    with pytest.raises(InputError, match=f"{config.ABLATIONS}: ablations.rows.a.context is 'c'"):
        params.read(path)


def test_a_missing_knob_or_section_is_named_when_a_stage_needs_it(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 3\n")
    settings = params.read(tmp_path / "params.yaml")
    assert settings.seed == 3
    asked = {
        "k": lambda: settings.k,
        "defaults.ldm": lambda: settings.section(LDM),
        "rows": lambda: settings.names("rows"),
    }
    for name, ask in asked.items():
        with pytest.raises(InputError, match=f"'{name}' is missing"):
            ask()


@pytest.mark.parametrize("kind, model", [("rows", Row), ("retrievals", PartialRetrieval)])
def test_an_entry_that_is_not_there_is_named(kind, model, tmp_path):
    with pytest.raises(InputError, match=f"no 'releasd' under {kind}.*'released'"):
        read(tmp_path).entry(kind, "releasd", model)


def test_the_steps_of_a_row_must_divide_the_timesteps_of_its_own_variant(tmp_path):
    overrides = ["+variants.rdm.ldm.timesteps=50", "+rows.rdm.sample.steps=25"]
    assert row_sample(read(tmp_path, *overrides), "rdm").steps == 25


@pytest.mark.parametrize("text", ["", "k: [", "- a"])
def test_a_file_that_is_not_yaml_or_not_there_is_refused(text, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        config.read(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="run from the project's top"):
        config.read(tmp_path / "elsewhere.yaml")
