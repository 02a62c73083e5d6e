"""The built-in model's training: its world, its recipe, and that it runs through the trainer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from framepack.shapes import builtin
from framepack.shapes import shape_measures as measure
from framepack.shapes.encode import FIRST_SEED, FRAMES_SEED, clip_of, load_vae, scene_of, write_clips
from framepack.shapes.export import export, read_history
from framepack.shapes.generate import Builtin
from framepack.shapes.recipe import BROAD, DIT, EVEN, EVERY, INVERTED, STAGES, TEXTUAL, WIDE, Recipe, recipe
from framepack.shapes.rendering import render
from framepack.shapes.teach_text import teach
from framepack.shapes.text import UNKNOWN, Tokenizer
from framepack.shapes.train_dit import NUM_TOKENS, WORDS, Pair, read_exported, small_spec, taught, trainer_of
from framepack.shapes.world import COLOURS, DIRECTIONS, caption, centres
from framepack.training.cache import Index, clip_path, write_tensors
from framepack.training.config import Share, Stage
from framepack.training.reports import read_log
from framepack.training.states import read_weights
from framepack.training.step_data import draw
from tests.names import TABLE_1


@pytest.mark.parametrize("seed", range(12))
def test_a_clip_shows_what_its_caption_says(seed: int):
    scene = scene_of(seed)
    video = render(scene, range(40)).transpose(0, 1)
    seen = measure.track(video)
    assert set(measure.nearest_colour(seen.colour, COLOURS)) == {scene.colour}
    assert (seen.centre - centres(scene, range(40)).float()).norm(dim=1).max() < 1.0
    last = min(int(scene.first_bounce), 39)
    moved = (seen.centre[last] - seen.centre[0]).tolist()
    along = moved[0] * DIRECTIONS[scene.direction][0] + moved[1] * DIRECTIONS[scene.direction][1]
    assert along >= 0.5 * last * 0.2 - 1
    for word in (scene.colour, scene.shape, scene.direction):
        assert word in caption(scene).replace(",", "").split()


def test_every_caption_is_known_and_fits():
    tokenizer = Tokenizer(WORDS, NUM_TOKENS)
    for seed in range(300):
        for wording in range(3):
            text = caption(replace(scene_of(seed), wording=wording))
            assert UNKNOWN not in tokenizer(text), text
            assert len(text.split()) <= NUM_TOKENS


def test_every_mixture_shares_all_steps_out():
    for mixture in (BROAD, TEXTUAL, WIDE, EVEN, EVERY):
        assert sum(share.weight for share in mixture) == pytest.approx(1)
    assert set(TABLE_1) <= {share.schedule for share in WIDE}


TINY = replace(
    small_spec(),
    heads=2,
    head_dim=16,
    rope_axes=(4, 6, 6),
    double_blocks=1,
    single_blocks=1,
    text_dim=32,
    pooled_dim=32,
)


def short(latents, out, *steps: int) -> Recipe:
    """A recipe of a few steps: AdamW, then Muon with a text encoder that was taught by itself."""
    broad = tuple(replace(share, batch=2) for share in BROAD)
    stages = [Stage(steps=steps[0], optimizer="adamw", rate=1e-3, mixture=broad, warmup=2)]
    later = {"optimizer": "muon", "rate": 1e-3, "mixture": broad, "warmup": 2, "train": DIT}
    stages += [Stage(steps=n, **later) for n in steps[1:]]
    return replace(recipe(latents, out, tuple(stages), batch=1, save_every=2), teach={1: 3})


@pytest.fixture
def latents(tmp_path):
    torch.manual_seed(0)
    folder, clips = tmp_path / "latents", []
    for first, count, length in ((FIRST_SEED, 6, 47), (FRAMES_SEED, 40, 1)):
        file = f"{first}.safetensors"
        seeds = range(first, first + count)
        values = {str(seed): torch.randn(16, 1, 8, 8).repeat(1, length, 1, 1) * 2 + 1 for seed in seeds}
        write_tensors(clip_path(folder, file), values)
        clips += [clip_of(seed, file, length) for seed in seeds]
    Index(encoder="made up", clips=tuple(clips)).write(folder)
    return folder


def test_the_recipe_draws_every_order_and_first_frames_from_text_alone(latents, tmp_path):
    how = recipe(latents, tmp_path / "run", STAGES[:4])
    clips = trainer_of(how, TINY).clips
    drawn = [draw(how.config, step, clips).section for step in range(200)]
    assert any(not section.context for section in drawn)
    assert any(len(section.makes) == 2 for section in drawn)  # both ends at once


def test_a_run_that_is_killed_within_a_step_resumes_to_the_same_weights(latents, tmp_path):
    def run(how: Recipe, killed_at: int = 0):
        trainer = trainer_of(how, TINY)
        if killed_at:
            backward = trainer.backward

            def cut_off(drawn):
                if trainer.done == killed_at:
                    raise KeyboardInterrupt
                return backward(drawn)

            trainer.backward = cut_off
        trainer.run(before=lambda stage: taught(trainer, how, stage))

    whole, halves = (short(latents, tmp_path / name, 3, 3) for name in ("whole", "halves"))
    run(whole)
    for step in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            run(halves, step)
    run(halves)
    one, two = (read_weights(how.config.run.out / "states" / "000000006") for how in (whole, halves))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    logs = [read_log(how.config.run.out / "log.jsonl") for how in (whole, halves)]
    assert logs[0] == logs[1]


def test_what_is_trained_is_exported_and_read_back(latents, tmp_path):
    how = short(latents, tmp_path / "run", 2)
    trainer_of(how, small_spec()).run()
    export(tmp_path / "run", latents, tmp_path / "assets", builtin.ASSETS)
    (tmp_path / "assets" / "vae").symlink_to(builtin.ASSETS / "vae")
    model = Builtin.load(tmp_path / "assets")
    mean = read_weights(tmp_path / "run" / "states" / "000000002")
    assert model.tokenizer.words == WORDS
    assert read_history(tmp_path / "assets")["before"] == read_history(builtin.ASSETS)
    assert torch.allclose(model.dit.proj_out.bias, mean["dit.proj_out.bias"], atol=1e-3)
    sample = torch.randn(1, 16, 2, 8, 8)
    assert torch.allclose(model.latent_format.process_in(model.latent_format.process_out(sample)), sample, atol=1e-4)


def test_the_models_own_weights_train_on_from_where_they_are(tmp_path):
    clips = write_clips(load_vae(builtin.VAE), tmp_path / "latents", range(FIRST_SEED, FIRST_SEED + 2), 37, 2)
    Index(encoder="builtin", clips=tuple(clips)).write(tmp_path / "latents")
    inverted = Share(schedule=INVERTED, num_lat_frames=37)
    stages = (Stage(steps=3, optimizer="adamw", rate=1e-5, mixture=(inverted,)),)
    trainer = trainer_of(recipe(tmp_path / "latents", tmp_path / "run", stages, batch=2), small_spec())
    fresh = trainer.step().loss
    read_exported(trainer.model, builtin.ASSETS)
    known = trainer.step().loss
    assert known < 0.3 * fresh


def test_the_text_encoder_is_taught_to_say_what_captions_say():
    torch.manual_seed(0)
    tokenizer = Tokenizer(WORDS, NUM_TOKENS)
    text = Pair(small_spec(), tokenizer, 0).text
    assert teach(text, tokenizer, steps=60, seed=0) > 0.6  # chance is under a third
