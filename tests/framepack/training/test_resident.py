"""Clips on a device: their batches are those that are built clip by clip; histories in any order; +d."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from framepack.packing.codebook import Codebook
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve
from framepack.training.clips import Clips
from framepack.training.config import Share
from framepack.training.loss import batch_of, generator_of
from framepack.training.optimizers import TogetherMuon
from framepack.training.resident import Resident
from framepack.training.step_data import draw, part_of, reordered
from framepack.training.trainer import Trainer
from tests.framepack.training.made_up import made_up_cache, made_up_config, prepared

MEAN, STD = [0.5] * 16, [2.0] * 16


def test_a_batch_on_a_device_shows_what_a_batch_from_files_shows(tmp_path: Path):
    config = made_up_config(tmp_path)
    config = replace(config, stage=(replace(config.stage[0], steps=8),))
    clips, resident = (kind(tmp_path / "cache", MEAN, STD) for kind in (Clips, Resident))
    seen = set()
    for step in range(8):
        drawn = draw(config, step, clips)
        places = range(len(drawn.clips))
        sources = [generator_of(0, step, place) for place in places]
        one = batch_of(drawn, clips, config.history, sources, places, of=len(places))
        two = resident.batch(drawn, config.history, 0, step, places, of=len(places))
        clean = [batch.noisy - batch.sigma.view(-1, 1, 1, 1, 1) * batch.target for batch in (one, two)]
        assert torch.allclose(*clean, atol=5e-3)  # it is held in half precision
        assert len(one.history) == len(two.history)
        for group, same in zip(one.history, two.history, strict=True):
            assert (group.kernel, group.positions) == (same.kernel, same.positions)
            assert torch.allclose(group.latents, same.latents, atol=5e-3)
        again = resident.batch(drawn, config.history, 0, step, places, of=len(places))
        assert torch.equal(two.noisy, again.noisy)
        seen.add(len(one.history))
    assert len(seen) > 1  # sections with a history, and first frames


def test_a_run_on_resident_clips_resumes_to_the_bit(tmp_path: Path):
    def trainer(out: str) -> Trainer:
        config = made_up_config(tmp_path)
        config = replace(config, run=replace(config.run, out=tmp_path / out, save_every=1, read_every=2))
        run = prepared(config)
        return Trainer(config, run.trainer.model, Resident(tmp_path / "cache"), run.trainer.words)

    whole, halves = trainer("whole"), trainer("halves")
    whole.run()
    halves.run(stop=lambda: halves.done == 2)
    rest = trainer("halves")
    assert rest.run()
    one, two = whole.model.state_dict(), rest.model.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("schedule", ["inverted", "td_f16k4f2k2f1k1_g9", "forward", "endpoint"])
def test_a_history_in_any_order_holds_finished_frames_of_the_same_side_once(schedule: str):
    plan, rng = make_plan(resolve(schedule), num_lat_frames=46), random.Random(0)
    side = "future" if resolve(schedule).future else "past"
    orders, true = set(), 0
    for section in plan.sections[1:] * 4:
        made = reordered(rng, section, 46, side)
        assert [len(c.frames) for c in made.context] == [len(c.frames) for c in section.context]
        start, stop = section.makes[0][0], section.makes[-1][1]
        known = [frame for context in made.context for frame in context.frames if frame is not None]
        assert len(known) == len(set(known))
        for before, after in zip(section.context, made.context, strict=True):
            past = before.positions[0] < section.positions[0]
            for frame, position in zip(after.frames, after.positions, strict=True):
                if frame and before.frames != after.frames:
                    assert frame < start if past else frame >= stop
                    true += position - section.positions[0] == frame - start
        orders.add(tuple(known) == tuple(sorted(known)))
    assert False in orders
    assert true


def test_history_is_discretized_but_for_the_start_frame(tmp_path: Path):
    made_up_cache(tmp_path / "cache")
    Codebook(centroids=torch.randn(5, 16) * 3, latent_format="made up").save(tmp_path / "codebook.safetensors")
    config = made_up_config(tmp_path)
    share = Share(schedule="f1k1_x_g2_f1k1f2k2_td", num_lat_frames=9)
    config = replace(
        config,
        history=replace(config.history, codebook=tmp_path / "codebook.safetensors"),
        stage=(replace(config.stage[0], mixture=(share,), steps=6),),
    )
    resident, clips = (kind(tmp_path / "cache", MEAN, STD) for kind in (Resident, Clips))
    allowed = (Codebook.load(tmp_path / "codebook.safetensors").centroids - 0.5) / 2
    found = 0
    for step in range(6):
        drawn = part_of(draw(config, step, clips), range(1))
        for batch in (
            resident.batch(drawn, config.history, 0, step, range(1), of=1),
            batch_of(drawn, clips, config.history, [generator_of(0, step, 0)], range(1), of=1),
        ):
            for group, context in zip(batch.history, drawn.section.context, strict=True):
                for i, frame in enumerate(context.frames):
                    pixels = group.latents[0, :, i].flatten(1).T
                    near = torch.cdist(pixels, allowed).amin(1).max() < 1e-3
                    assert near == (frame not in (0, None))
                    found += bool(near)
    assert found


def test_matrices_orthogonalized_together_are_those_of_torchs_muon():
    """To the rounding of torch's, which computes in bfloat16."""
    source = torch.Generator().manual_seed(0)
    shapes = [(16, 16)] * 3 + [(32, 16), (16, 48)]
    weights = [torch.randn(shape, generator=source) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in weights] for _ in range(2))
    how = {"lr": 1e-2, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = TogetherMuon(ours, **how), torch.optim.Muon(theirs, **how)
    for _ in range(4):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=source)
            two.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, two, before in zip(ours, theirs, weights, strict=True):
        moved = (two - before).norm()
        assert (one - two).norm() < 0.02 * moved
        assert moved / before.norm() > 1e-3
        assert (one - before).abs().max() > 1e-2
