"""What is done to history: matched to the start, noised, discretized; never the start, missing frames or images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framepack.errors import FramePackError
from framepack.packing.codebook import Codebook
from framepack.packing.history import gather
from framepack.packing.treatment import Treatment, stats
from framepack.planning.pins import read_pins
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.units import RELEASED

PLAN = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g9"), num_lat_frames=28, pins=read_pins("image hero", 30, RELEASED))
SECTION = PLAN.sections[1]  # sees the start, an image, frames 0 to 9 and empty slots
BOOK = Codebook(centroids=torch.randn(8, 16, generator=torch.Generator().manual_seed(2)), latent_format="wan21")


@pytest.fixture
def timeline() -> dict[int | str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {i: 2 * torch.randn(2, 16, 1, 6, 6, generator=generator) + 1 for i in range(28)}
    return {**made, 0: torch.randn(2, 16, 1, 6, 6, generator=generator), "hero": torch.randn(2, 16, 1, 6, 6)}


def treated(treatment: Treatment, timeline: dict[int | str, Tensor], index: int = 1) -> dict[int | str, Tensor]:
    return dict(treatment.treated(SECTION, timeline, 5, index))


SEEN = sorted({f for run in SECTION.seen for f in run} - {0})


@pytest.mark.parametrize("treatment", [Treatment(), Treatment(codebook=BOOK, strength=0.0), Treatment(match=0.0)])
def test_a_strength_of_zero_changes_no_bit(treatment: Treatment, timeline: dict):
    assert treatment.treated(SECTION, timeline, 5, 1) is timeline


@pytest.mark.parametrize("treatment", [Treatment(match=1.0), Treatment(noise=0.3), Treatment(codebook=BOOK)])
def test_the_start_missing_frames_and_images_are_left_alone(treatment: Treatment, timeline: dict):
    after = treated(treatment, timeline)
    assert len(SEEN) == 9
    for frame, latent in timeline.items():
        assert torch.equal(after[frame], latent) == (frame not in SEEN)
    empty = [g for g in gather(SECTION, after, torch.empty(2, 16, 1, 6, 6)) if not g.latents.any()]
    missing = sum(frame is None for context in SECTION.context for frame in context.frames)
    whole = gather(SECTION, after, torch.empty(2, 16, 1, 6, 6))
    blank = sum(int(not g.latents[:, :, i].any()) for g in whole for i in range(g.latents.shape[2]))
    assert blank == missing > 0 and len(empty) < len(whole)


def test_matching_gives_the_history_the_starts_mean_and_variance_in_proportion(timeline: dict):
    def history(after: dict) -> Tensor:
        return torch.cat([after[f] for f in SEEN], 2)

    full = history(treated(Treatment(match=1.0), timeline))
    for found, wanted in zip(stats(full), stats(timeline[0]), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)
    half = history(treated(Treatment(match=0.5), timeline))
    assert torch.allclose(half, (full + history(timeline)) / 2, atol=1e-5)


def test_noise_has_its_level_and_is_the_same_for_the_same_section_alone(timeline: dict):
    once, again = (treated(Treatment(noise=0.25), timeline) for _ in range(2))
    other = treated(Treatment(noise=0.25), timeline, index=2)
    assert all(torch.equal(once[f], again[f]) and not torch.equal(once[f], other[f]) for f in SEEN)
    noise = torch.cat([(once[f] - 0.75 * timeline[f]) / 0.25 for f in SEEN], 2)
    assert noise.mean().abs() < 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)


def test_noise_above_a_drift_acts_on_the_items_that_have_drifted(timeline: dict):
    sound = {f: timeline[0].clone() for f in SEEN}
    mixed = {**timeline, **{f: torch.cat([sound[f][:1], timeline[f][1:]]) for f in SEEN}}
    after = treated(Treatment(noise=0.1, noise_above=0.15), mixed)
    assert all(torch.equal(after[f][0], mixed[f][0]) and not torch.equal(after[f][1], mixed[f][1]) for f in SEEN)


def test_a_codebook_acts_in_the_models_normalised_latents(timeline: dict):
    inside = Treatment(codebook=BOOK).within(lambda latents: latents / 2 - 1)
    after = treated(inside, timeline)
    pixels = after[SEEN[0]].movedim(1, -1).flatten(0, -2)
    assert torch.cdist(pixels, BOOK.centroids / 2 - 1).amin(1).max() < 5e-3


@pytest.mark.parametrize("fields", [{"match": 1.5}, {"noise": -0.1}, {"noise": float("nan")}, {"noise_above": -1.0}])
def test_values_out_of_bounds_are_named(fields: dict):
    with pytest.raises(FramePackError, match=next(iter(fields))):
        Treatment(**fields)
