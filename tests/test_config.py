"""params.yaml: what it says is what the stages get, and what cannot work is refused in one line."""

import shutil
from pathlib import Path

from rissole.ground import config, schema
from rissole.ground.errors import InputError

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

PARAMS = Path("params.yaml")
PRESETS = [*yaml.safe_load(PARAMS.read_text())["presets"]]


def edited(tmp_path, *overrides):
    """params.yaml as `dvc exp run -S` leaves it."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text())
    apply_overrides(path, list(overrides))
    return path


def read(tmp_path, *overrides):
    return config.read(edited(tmp_path, *overrides))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_every_section_variant_and_row(preset, tmp_path):
    settings = read(tmp_path, f"preset={preset}")
    for section, model in schema.SECTIONS.items():
        assert isinstance(getattr(settings, section), model)
    for name in settings.variants:
        assert isinstance(settings.variant_ldm(name), schema.LDM)
    for name in settings.rows:
        assert isinstance(settings.row_sample(name), schema.Sample)


def test_a_preset_is_laid_over_the_shared_section(tmp_path):
    settings = read(tmp_path, "ldm.batch=7", "ldm.steps=5")
    assert settings.ldm.steps == 450  # the preset's
    settings = read(tmp_path, "~presets.quick.ldm.steps", "ldm.steps=5")
    assert settings.ldm.steps == 5


def test_a_variant_is_laid_over_the_preset(tmp_path):
    settings = read(tmp_path, "+variants.rissole_halo.ldm.steps=9")
    assert settings.variant_ldm("rissole_halo").steps == 9
    assert settings.variant_ldm("rissole_latent").steps == 450


def test_a_row_is_laid_over_the_preset(tmp_path):
    settings = read(tmp_path, "+rows.rissole_halo.sample={steps: 10, sampler: dpmsolver++}")
    of, other = settings.row_sample("rissole_halo"), settings.row_sample("rissole_latent")
    assert (of.steps, of.sampler, of.images) == (10, "dpmsolver++", 500)
    assert other == settings.sample


def test_a_row_names_its_weights_and_what_they_are_told(tmp_path):
    row = read(tmp_path, "+rows.rissole.seed=5").row("rissole")
    assert row == schema.Row(variant="rissole", context="neighbours/main", seed=5)
    mended = read(tmp_path).row("leaked_mended")
    assert (mended.variant, mended.context, mended.may_copy) == ("leaked", "neighbours/main", True)


def repeated(settings):
    return settings.repeats(settings.rows)


def test_rows_that_are_trained_alike_but_for_the_seed_are_repeats(tmp_path):
    assert repeated(read(tmp_path)) == [["rissole", "rissole_again"]]


def test_any_number_of_seeds_are_repeats_of_each_other(tmp_path):
    settings = read(
        tmp_path,
        "+variants.third={context: neighbours/main, neighbours: stack, seed: 2}",
        "+rows.third={variant: third, context: neighbours/main}",
        "+variants.whole_again={context: latents, blocks: 1, seed: 1}",
        "+rows.whole_again={variant: whole_again, context: latents}",
    )
    assert repeated(settings) == [["rissole", "rissole_again", "third"], ["whole", "whole_again"]]


def test_blocks_that_are_written_out_repeat_those_that_are_taken_over(tmp_path):
    assert repeated(read(tmp_path, "+variants.rissole_again.blocks=2")) != []
    assert repeated(read(tmp_path, "+variants.rissole_again.blocks=4")) == []


@pytest.mark.parametrize(
    "override",
    [
        "+variants.rissole_again.ldm.average=0.5",
        "+rows.rissole_again.sample={steps: 10}",
        "rows.rissole_again.context=neighbours/latent",
        "+rows.rissole_again.may_copy=true",
    ],
)
def test_rows_that_differ_in_more_than_seeds_are_no_repeats(override, tmp_path):
    assert repeated(read(tmp_path, override)) == []


def test_a_neighbour_table_takes_over_the_knobs_it_leaves_out(tmp_path):
    settings = read(tmp_path, "k=9", "exclude=group")
    latent = settings.retrieval("latent")
    assert (latent.k, latent.query, latent.exclude) == (9, "latent", "group")
    assert settings.retrieval("rdm").k == 4
    assert settings.retrieval("released").exclude == "none"


def test_a_small_number_as_dvc_writes_it_is_a_number(tmp_path):
    path = edited(tmp_path, "presets.quick.ldm.learning_rate=1e-5")
    assert "1e-05" in path.read_text()
    assert config.read(path).ldm.learning_rate == pytest.approx(1e-5)


def test_setting_a_knob_keeps_the_file_as_it_is_written(tmp_path):
    assert edited(tmp_path, "k=20").read_text() == PARAMS.read_text()


def test_setting_another_k_changes_one_line(tmp_path):
    before, after = PARAMS.read_text().split("\n"), edited(tmp_path, "k=4").read_text().split("\n")
    changed = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert len(changed) == 1
    assert changed[0][1].startswith("k: 4  ")
    assert changed[0][1].endswith(changed[0][0].partition("#")[2])


def test_rows_have_the_top_level_blocks_and_seed_unless_they_say_otherwise(tmp_path):
    settings = read(tmp_path, "blocks=4", "seed=7")
    assert (settings.variant("rissole").blocks, settings.variant("rissole").seed) == (4, 7)
    assert settings.variant("whole").blocks == 1
    assert settings.variant("rissole_again").seed == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_chosen_with_the_ablations_beside_it(preset, tmp_path):
    path = edited(tmp_path, f"preset={preset}")
    (tmp_path / config.ABLATIONS).parent.mkdir(parents=True)
    shutil.copy(config.ABLATIONS, tmp_path / config.ABLATIONS)
    settings = config.read(path)
    assert "patch_dm" in settings.ablations.rows
    assert settings.variant("ablations/patch_dm").collage == 2


FAULTS = {
    "+kk=5": ("kk", "did you mean 'k'"),
    "k=abc": ("k", "'abc'"),
    "k=0": ("k", "0", "greater than 0"),
    "k=4.5": ("k", "4.5"),
    "k=true": ("k", "True"),
    "k=-1": ("k", "-1"),
    "k=4000": ("k", "4000", "lower k"),
    "k=null": ("k", "None"),
    "seed=-1": ("seed", "-1"),
    "preset=quik": ("preset", "'quik'", "did you mean 'quick'"),
    "blocks=3": ("blocks", "3", "[2, 4, 8]"),
    "blocks=1": ("blocks is 1", "[2, 4, 8]"),  # nothing to compare
    "blocks=16": ("blocks is 16", "[2, 4, 8]"),  # no border within which to look for seams
    "+variants.rissole.blocks=16": ("variants.rissole.blocks", "16", "[1, 2, 4, 8]"),
    "presets.quick.sample.images=9": ("sample.images", "9", "10"),
    "+variants.rissole.network=ddpmpp": ("variants.rissole.network", "ddpmpp"),
    "query=first": ("query", "'first'", "first_block"),
    "exclude=me": ("exclude", "'me'", "group"),
    "threads=0": ("threads", "0"),
    "+vqgan.stepz=1": ("vqgan.stepz", "did you mean 'steps'"),
    "+presets.quick.vqgan.stepz=1": ("presets.quick.vqgan.stepz", "did you mean 'steps'"),
    "+presets.celeba.ldm.stepz=1": ("presets.celeba.ldm.stepz", "did you mean 'steps'"),
    "+presets.quick.vqgann={}": ("presets.quick.vqgann", "did you mean 'vqgan'"),
    "presets.quick.ldm.steps=many": ("presets.quick.ldm.steps", "'many'"),
    "presets.quick.ldm.steps=0": ("presets.quick.ldm.steps", "0"),
    "presets.quick.ldm.learning_rate=-1": ("presets.quick.ldm.learning_rate", "-1"),
    "presets.quick.ldm.widths=[48,50]": ("presets.quick.ldm.widths", "[48, 50]", "16"),
    "presets.quick.ldm.widths=[]": ("presets.quick.ldm.widths", "[]"),
    "presets.quick.data.source=celeb": ("presets.quick.data.source", "'celeb'", "celeba"),
    "presets.quick.data.source=celeba": ("data.root", "None", "path"),
    "presets.quick.data.images=null": ("data.images", "None", "number"),
    "presets.folder.data.root=null": ("data.root", "None", "path"),
    "data.groups='(a)(b)'": ("data.groups", "'(a)(b)'", "exactly one"),
    "data.labels='(a)(b)'": ("data.labels", "'(a)(b)'", "exactly one"),
    "data.groups='('": ("data.groups", "'('", "regular expression"),
    "data.size=66": ("data.size", "66", "multiple of 4"),
    "data.validation=1.0": ("data.validation", "1.0"),
    "vqgan.quantiser.kind=fsqq": ("vqgan.quantiser", "fsq"),
    "vqgan.quantiser.levels=[8,1]": ("vqgan.quantiser.levels", "1"),
    "vqgan.quantiser.levels=[64,64,64]": ("vqgan.quantiser.levels", "65,536"),
    "vqgan.widths=[30,64]": ("vqgan.widths", "[30, 64]", "multiples of 8"),
    "vqgan.perceptual=lpips": ("vqgan.lpips_weights", "None", "path"),
    "vqgan.discriminator_start=0.9": ("vqgan.discriminator_start", "0.9", "adversarial_start"),
    "~vqgan.l1": ("vqgan.l1", "missing"),
    "~ldm.depth": ("ldm.depth", "missing"),
    "presets.quick.sample.sampler=heun": ("sample.sampler", "'heun'", "'lognormal'"),
    "sample.sampler=euler": ("sample.sampler", "'euler'", "ddim"),
    "presets.quick.sample.steps=5000": ("sample.steps", "5000", "1000"),
    "presets.quick.sample.steps=30": ("sample.steps", "30", "20, 25, 40"),
    "queries=100": ("sample.images", "500", "raise queries"),
    "presets.quick.sample.images=4900": ("sample.images", "4900", "4000 train images"),
    "retrievals.rdm.k=4990": ("retrievals.rdm.k", "4990", "lower"),
    "presets.imagenet100.data.classes=null": ("data.classes", "None", "imagenet100"),
    "variants.rdm.context=neigbours/rdm": ("variants.rdm.context", "'neigbours/rdm'", "latents"),
    "judge.size=16": ("judge.size", "16"),
    "index.kind=flat": ("index.kind", "'flat'", "exact"),
    "retrievals.rdm.k=0": ("retrievals.rdm.k", "0"),
    "+retrievals.rdm.kk=1": ("retrievals.rdm.kk", "did you mean 'k'"),
    "+variants.rissole.positions=true": ("variants.rissole.positions", "did you mean 'position'"),
    "variants.rdm.context=neighbours/rmd": ("variants.rdm.context", "'rmd'", "'rdm'"),
    "variants.rdm.context=latents": ("variants.rdm.context", "'latents'", "tokens"),
    "variants.rissole_halo.neighbours=stacked": ("variants.rissole_halo.neighbours", "stack"),
    "variants.rissole_halo.ldm.share_timestep=block": ("variants.rissole_halo.halo", "2", "image"),
    "+variants.rissole_halo.previous=true": ("variants.rissole_halo.previous", "stack"),
    "+variants.rissole_latent.overview=true": ("rissole_latent.overview", "True", "image"),
    "+variants.rissole_halo.overview=true": ("variants.rissole_halo.overview", "halo"),
    "+variants.whole.collage=2": ("variants.whole.collage", "patch_dm"),
    "+variants.whole.network=patch_dm": ("variants.whole.collage", "no less than 1"),
    "variants.rdm.blocks=3": ("variants.rdm.blocks", "3"),
    "variants.released.ldm.attention=bar": ("variants.released.ldm.attention", "'bar'"),
    "+variants.released.ldm.stepz=1": ("variants.released.ldm.stepz", "did you mean 'steps'"),
    "rows.rdm.variant=rmd": ("rows.rdm.variant", "'rmd'", "did you mean 'rdm'"),
    "rows.rdm.context=neighbours/rmd": ("rows.rdm.context", "'rmd'", "did you mean 'rdm'"),
    "rows.rdm.context=neigbours/rdm": ("rows.rdm.context", "'neigbours/rdm'", "'neighbours/'"),
    "rows.rdm.context=latents": ("rows.rdm.context", "'latents'", "retrieves if its variant does"),
    "rows.whole.context=neighbours/main": ("rows.whole.context", "'neighbours/main'", "'latents'"),
    "+rows.rdm.sample.steps=30": ("rows.rdm.sample.steps", "30", "20, 25, 40"),
    "+rows.rdm.sample.steps=0": ("rows.rdm.sample.steps", "0", "greater than 0"),
    "+rows.rdm.sample.sampler=euler": ("rows.rdm.sample.sampler", "'euler'", "ddim"),
    "+rows.rdm.sample.stepz=1": ("rows.rdm.sample.stepz", "did you mean 'steps'"),
    "+variants.rdm.ldm.timesteps=50": ("sample.steps", "20", "timesteps 50", "10, 25, 50"),
    "rows.leaked.may_copy=maybe": ("rows.leaked.may_copy", "'maybe'"),
    "+rows.rdm.may_copi=true": ("rows.rdm.may_copi", "did you mean 'may_copy'"),
    "+rows.rdm.seed=-1": ("rows.rdm.seed", "-1"),
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


def test_a_missing_knob_is_named_when_a_stage_needs_it(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 3\n")
    settings = config.read(tmp_path / "params.yaml")
    assert settings.seed == 3
    for name in ("k", "vqgan", "variants", "rows"):
        with pytest.raises(InputError, match=f"'{name}' is missing"):
            getattr(settings, name)


@pytest.mark.parametrize("kind", ["variant", "row"])
def test_a_row_or_a_variant_that_is_not_there_is_named(kind, tmp_path):
    with pytest.raises(InputError, match=f"'rissole_hallo' under {kind}s.*'rissole_halo'"):
        getattr(read(tmp_path), kind)("rissole_hallo")


def test_the_steps_of_a_row_must_divide_the_timesteps_of_its_own_variant(tmp_path):
    overrides = ["+variants.rdm.ldm.timesteps=50", "+rows.rdm.sample.steps=25"]
    assert read(tmp_path, *overrides).row_sample("rdm").steps == 25


@pytest.mark.parametrize("text", ["", "k: [", "- a", "k: 1\nk: {"])
def test_a_file_that_is_not_yaml_is_refused(text, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        config.read(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="top"):
        config.read(tmp_path / "params.yaml")


def test_rows_of_one_denoiser_that_differ_in_the_seed_of_their_noise_are_told_apart(tmp_path):
    noises = [
        f"+rows.{name}={{variant: rissole, context: neighbours/main, seed: {seed}}}"
        for name, seed in (("a", 5), ("b", 6))
    ]
    settings = read(tmp_path, *noises)
    assert settings.redraws(settings.rows) == [["rissole", "a", "b"]]
    assert ["rissole", "rissole_again"] in settings.repeats(settings.rows)
