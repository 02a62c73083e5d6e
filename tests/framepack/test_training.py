"""The training code: the data, the loss, and that a run resumes where it stopped."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from framepack.models.hunyuan import HunyuanDiT
from framepack.shapes import builtin, train_dit
from framepack.shapes import measures as measure
from framepack.shapes.encode import FIRST_SEED, FRAMES_SEED, scene_of
from framepack.shapes.export import export
from framepack.shapes.generate import Builtin
from framepack.shapes.recipe import BROAD, TEXTUAL, WIDE, Recipe, Stage, draw_section
from framepack.shapes.teach_text import teach
from framepack.shapes.text import UNKNOWN, Tokenizer
from framepack.shapes.train_dit import NUM_TOKENS, WORDS, Trainee, grown, loss_of, small_spec, step_once, train
from framepack.shapes.world import COLOURS, DIRECTIONS, caption, centres, render
from framepack.training.muon import orthogonalised
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


def test_the_mixture_holds_every_order_and_the_case_without_an_image():
    for mixture in (BROAD, TEXTUAL, WIDE):
        assert sum(each.share for each in mixture) == pytest.approx(1)
    rng = random.Random(0)
    drawn = [draw_section(rng, BROAD) for _ in range(300)]
    assert any(not s.context for s in drawn)  # the first frame from text alone
    assert any(len(s.makes) == 2 for s in drawn)  # both ends at once


def test_the_last_mixture_holds_every_schedule_of_the_papers_table():
    assert set(TABLE_1) <= {each.schedule for each in WIDE}


def test_a_packing_layer_that_a_state_lacks_is_made_by_interpolation():
    spec = small_spec()
    dit = HunyuanDiT(spec)
    whole = {f"dit.{k}": v for k, v in dit.state_dict().items()}
    lacking = {k: v for k, v in whole.items() if "proj_8x" not in k}
    made = grown(lacking, spec)
    assert made.keys() == whole.keys()
    assert torch.allclose(
        made["dit.clean_x_embedder.proj_8x.weight"].sum((2, 3, 4)),
        whole["dit.clean_x_embedder.proj_4x.weight"].sum((2, 3, 4)),
        atol=1e-5,
    )


def short(*steps: int) -> Recipe:
    """A recipe of a few steps: AdamW, then Muon with a text encoder that was taught by itself."""
    stages = [Stage(steps=steps[0], optimizer="adamw", rate=1e-3, mixture=BROAD, warmup=2)]
    later = {"optimizer": "muon", "rate": 1e-3, "mixture": BROAD, "warmup": 2, "teach": 3, "text": False}
    stages += [Stage(steps=n, **later) for n in steps[1:]]
    return Recipe(stages=tuple(stages), batch=1, batch_of_frames=2)


@pytest.fixture
def latents(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "latents"
    folder.mkdir()
    clips = torch.randn(6, 16, 1, 8, 8).repeat(1, 1, 47, 1, 1) * 2 + 1
    save_file({"latents": clips, "seeds": torch.arange(6) + FIRST_SEED}, folder / "0.safetensors")
    (folder / "first").mkdir()
    first = torch.randn(40, 16, 1, 8, 8)
    save_file({"latents": first, "seeds": torch.arange(40) + FRAMES_SEED}, folder / "first" / "0.safetensors")
    return folder


def test_the_loss_is_the_velocitys(latents):
    section = draw_section(random.Random(3), BROAD)
    spec, tokenizer = small_spec(), Tokenizer(WORDS, NUM_TOKENS)
    model = Trainee(spec, tokenizer, 0)
    clips = torch.randn(2, 16, 47, 8, 8)
    torch.manual_seed(0)
    first = loss_of(model, clips, ["a red star moves up", ""], section, Recipe())
    # at the start the model predicts zero, so the loss is the variance of noise minus data: two
    assert first.item() == pytest.approx(2, rel=0.1)


def test_a_run_that_was_cut_off_resumes_to_the_same_weights(latents, tmp_path, monkeypatch):
    recipe = short(3, 2)
    spec = replace(small_spec(), double_blocks=1, single_blocks=1)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    train(latents, whole, recipe, spec)

    def cut_off(model, optimizer, data, step, recipe):
        if step == 4:
            raise KeyboardInterrupt
        return step_once(model, optimizer, data, step, recipe)

    monkeypatch.setattr(train_dit, "SAVE_EVERY", 2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train_dit, "step_once", cut_off)
        train(latents, halves, recipe, spec)
    assert torch.load(halves / "state.pt", weights_only=True)["step"] == 4
    train(latents, halves, recipe, spec)
    one, two = (torch.load(out / "state.pt", weights_only=True)["mean"] for out in (whole, halves))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_what_is_trained_is_exported_and_read_back(latents, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    train(latents, out, short(2), small_spec())
    export(out / "state.pt", latents, tmp_path / "assets")
    (tmp_path / "assets" / "vae").symlink_to(builtin.ASSETS / "vae")
    model = Builtin.load(tmp_path / "assets")
    kept = torch.load(out / "state.pt", weights_only=True)
    assert model.tokenizer.words == WORDS
    assert torch.allclose(model.dit.proj_out.bias, kept["mean"]["dit.proj_out.bias"], atol=1e-3)
    sample = torch.randn(1, 16, 2, 8, 8)
    assert torch.allclose(model.latent_format.process_in(model.latent_format.process_out(sample)), sample, atol=1e-4)


def test_the_text_encoder_is_taught_to_say_what_captions_say():
    torch.manual_seed(0)
    tokenizer = Tokenizer(WORDS, NUM_TOKENS)
    text = Trainee(small_spec(), tokenizer, 0).text
    assert teach(text, tokenizer, steps=60, seed=0) > 0.6  # chance is under a third


def test_muons_directions_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 16, 64), (2, 64, 16), (1, 32, 32)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.5
