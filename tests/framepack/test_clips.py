"""Plans of a backbone whose sections are clips, as Helios' are: what stands before the video, times, noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from framepack.errors import FramePackError, LatentSizeError, PlanError
from framepack.pictures.plan_picture import draw_plan
from framepack.pipeline import Job, Settings, sample_sections
from framepack.planning.outside import outside_of
from framepack.planning.plan import Plan
from framepack.planning.plan_slice import PlanSlice
from framepack.planning.prompt_timeline import read, with_prompts
from framepack.planning.request import FIRST, START, STILL, VIDEO, Endpoint, Extension, PlanRequest
from framepack.planning.times import place_of
from framepack.planning.video import plan_video
from framepack.sampling.staged import Pyramid, name_of, solver_named
from framepack.schedule.grammar import parse
from framepack.units import RELEASED
from tests.names import TABLE_1

SCHEDULE = "f1k1_x_f16k4f2k2f1k1_g9"
CLIPS = replace(RELEASED, sections_are_clips=True)
TWO = Extension(num_lat_frames=18, direction="forwards")


def planned(sections: int = 4, schedule: str = SCHEDULE, **options) -> Plan:
    seconds = sections * CLIPS.section_frames(parse(schedule).generate) / 24
    size = {"height": 32, "width": 64}
    return plan_video(PlanRequest.lasting(seconds, 24, schedule=parse(schedule), geometry=CLIPS, **(size | options)))


def context(plan: Plan, index: int) -> list:
    """A section's context by position: 0 the start, then the 19 nearest."""
    found = {p: f for c in plan.sections[index].context for f, p in zip(c.frames, c.positions, strict=True)}
    assert list(plan.sections[index].positions) == list(range(20, 29))
    assert sorted(found) == list(range(20))
    return [found[p] for p in range(20)]


def test_a_start_image_is_context_only_and_a_still_of_it_stands_before_the_first_frame():
    plan = planned(start=True)
    assert (plan.anchors, plan.num_lat_frames, plan.num_pix_frames) == ((), 36, 4 * 33)
    assert context(plan, 0) == [START, *[None] * 18, STILL]
    assert context(plan, 1) == [START, *[None] * 9, STILL, *range(9)]
    assert context(plan, 2) == [START, STILL, *range(18)]
    assert context(plan, 3) == [START, *range(8, 27)]


@pytest.mark.parametrize("tail", ["ta", "tc"])
@pytest.mark.parametrize("options", [{"start": True}, {"start": False}, {"extend": TWO}], ids=str)
def test_a_tail_changes_nothing_of_what_stands_before_the_video(tail: str, options: dict):
    """A tail in the past stands in front of all groups, so their places are others than without one."""
    schedule = f"{tail}_{SCHEDULE}"
    plain, tailed = planned(6, **options), planned(6, schedule=schedule, **options)
    for one, other in zip(plain.sections, tailed.sections, strict=True):
        assert [c.frames for c in one.context] == [c.frames for c in other.context if not c.tail]
    assert any(c.tail for c in tailed.sections[-1].context)


def test_in_text_to_video_the_first_latent_is_pinned_once_there_is_one():
    plan = planned(start=False)
    assert context(plan, 0) == [None] * 20
    assert context(plan, 1) == [0, *[None] * 10, *range(9)]
    assert context(plan, 3) == [0, *range(8, 27)]
    assert plan.slots == set()


def test_an_extended_video_is_of_several_clips_and_its_first_frame_is_pinned():
    plan = planned(2, extend=TWO)
    assert [a.to_dict() for a in plan.anchors] == [{"slot": VIDEO, "frame": 0, "num_lat_frames": 18, "clips": [9, 9]}]
    assert [len(clip) for clip in plan.clips] == [9] * 4
    assert plan.num_pix_frames == 4 * 33
    assert context(plan, 0) == [FIRST, None, *range(18)]
    assert context(plan, 1) == [FIRST, *range(8, 27)]
    assert Plan.from_json(plan.to_json()) == plan
    assert PlanSlice.within(plan, range(36)).clips == (9, 9, 9, 9)


@pytest.mark.parametrize("name", TABLE_1)
@pytest.mark.parametrize("options", [{"start": True}, {"start": False}, {"extend": TWO}], ids=str)
def test_every_schedule_can_be_planned_as_clips(name: str, options: dict):
    if "extend" in options and parse(name).future:
        options = {"extend": replace(TWO, direction="backwards"), "start": True}
    if "extend" in options:
        num = parse(name).generate * 2
        options = options | {"extend": replace(options["extend"], num_lat_frames=num)}
    plan = planned(schedule=name, **options)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.num_pix_frames == sum(CLIPS.pixel_frames(len(clip)) for clip in plan.clips)


@pytest.mark.parametrize(("num", "clips"), [(20, ()), (18, (9, 8)), (9, (9, 9))])
def test_a_video_that_is_no_whole_clips_is_rejected(num: int, clips: tuple[int, ...]):
    with pytest.raises(PlanError, match=f"whole clips of 9 latent frames.*got {num}"):
        planned(extend=Extension(num_lat_frames=num, direction="forwards", clips=clips))


def test_key_frames_stand_between_whole_sections():
    points = tuple(Endpoint(frame=CLIPS.seam(s, 24, 9) + i, slot=f"key{i}") for i, s in enumerate((1.3, 4.2)))
    plan = planned(4, endpoints=points)
    assert [a.frame for a in plan.anchors] == [9, 28]
    assert sorted(len(clip) for clip in plan.clips) == [1, 1, 9, 9, 9, 9]
    assert plan.num_pix_frames == 4 * 33 + 2


def test_an_exact_length_cuts_the_frames_that_key_frames_add():
    points = tuple(Endpoint(frame=CLIPS.seam(s, 24, 9) + i, slot=f"key{i}") for i, s in enumerate((1.3, 4.2)))
    plan = planned(4, endpoints=points, exact=True)
    assert (plan.kept, plan.num_pix_frames) == ((0, 4 * 33), 4 * 33 + 2)
    assert planned(4, endpoints=points).kept is None


def test_prompts_and_the_picture_follow_the_frames_of_clips():
    plan = planned(4)
    lines = read("0s: one\n2.75s: two", plan.num_pix_frames / 24)  # the border of sections 2 and 3
    assert [s.prompt for s in with_prompts(plan, lines, 24).sections] == ["one", "one", "two", "two"]
    assert place_of(plan, 66) == 18
    assert place_of(plan, 132) == 36
    draw_plan(plan, 24)


class Recorder:
    """A sampler that keeps its jobs; a section is the mean of what it sees."""

    def __init__(self, solver: Pyramid):
        self.solver, self.jobs = solver, []

    def key(self, job: Job) -> None:
        return None

    def sample(self, job: Job, step) -> torch.Tensor:
        self.jobs.append(job)
        for shape in self.solver.draws(job.noise.shape):
            torch.randn(shape, generator=job.generator)
        return torch.zeros_like(job.noise)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


def sampled(plan: Plan, in_turn: bool, first: int = 0, stop: int | None = None) -> list[Job]:
    """The jobs of a slice, as its JSON says."""
    part = PlanSlice.from_json(PlanSlice.of(plan, first, stop, in_turn).to_json())
    torch.manual_seed(0)
    like, sampler = torch.zeros(1, 2, 1, 8, 8), Recorder(Pyramid())
    slots = {slot: torch.ones(1, 2, 1, 8, 8) for slot in (START, STILL, FIRST)}
    timeline = slots | {frame: torch.full((1, 2, 1, 8, 8), float(frame)) for frame in range(plan.num_lat_frames)}
    settings = Settings(seed=7, outside_noise=(0.1, 0.2))
    how = {"first": part.first, "drawn": part.drawn, "outside": part.outside}
    list(sample_sections(part.sections, timeline, sampler, settings, like=like, **how))
    return sampler.jobs


@pytest.mark.parametrize("in_turn", [False, True], ids=["by section", "in turn"])
@pytest.mark.parametrize("options", [{"start": True}, {"extend": TWO}], ids=["image", "video"])
def test_a_section_on_its_own_draws_what_it_draws_among_the_others(options: dict, in_turn: bool):
    """The host samples each section apart, and may find those before it in its store."""
    plan = planned(3, **options)
    whole, alone = sampled(plan, in_turn), [sampled(plan, in_turn, i, i + 1)[0] for i in range(3)]
    for one, other in zip(whole, alone, strict=True):
        assert torch.equal(one.noise, other.noise)
        pinned = [job.history[0].latents[:, :, 0] for job in (one, other)]
        assert torch.equal(*pinned)
        assert torch.equal(one.generator.get_state(), other.generator.get_state())
    assert not torch.equal(whole[0].noise, whole[1].noise)
    start = whole[0].history[0].latents
    assert 0.05 < float((start - 1).abs().mean()) < 0.3  # noise of 0.1 to 0.2


def test_by_section_noise_from_outside_is_the_slots_own():
    alone, beside = planned(3, start=True), planned(3, start=True, endpoints=(Endpoint(frame=18, slot="key"),))
    assert [o.slot for o in outside_of(beside)] == [START, STILL, "key"]
    one, other = sampled(alone, False), sampled(beside, False)
    last = [next(j for j in jobs if j.section.makes[0][0] == 0) for jobs in (one, other)]
    assert torch.equal(*(job.history[0].latents for job in last))


def test_a_pyramid_states_its_levels_and_reads_its_name():
    for pyramid in (Pyramid(), Pyramid(steps=(10, 9, 8), distilled=False), Pyramid(first=2)):
        assert solver_named(name_of(pyramid)) == pyramid
        sigmas = pyramid.sigmas((1, 16, 9, 48, 80))
        assert len(sigmas) == 1 + sum(pyramid.steps)
        assert (sigmas[1:] < sigmas[:-1]).all()
        assert torch.equal((1000 * sigmas).round() / 1000, sigmas)
    with pytest.raises(FramePackError, match="pyramid mid 1 x9"):
        solver_named("pyramid mid 1 x9")
    for steps in ((), (0, 2, 2), (1,) * 6, (400, 400, 400)):
        with pytest.raises(FramePackError, match="stages"):
            Pyramid(steps=steps)


def test_a_pyramid_refuses_other_levels_and_sizes_that_it_cannot_halve():
    pyramid, noise = Pyramid(), torch.zeros(1, 2, 9, 16, 16)

    def run(noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        return pyramid(lambda x, sigma: x, noise, sigmas, generator=torch.Generator())

    run(noise, pyramid.sigmas(noise.shape))
    for wrong in (pyramid.sigmas((1, 2, 9, 32, 32)), torch.linspace(1, 0, 7), torch.linspace(1, 0, 8)):
        with pytest.raises(FramePackError, match="its own 7 noise levels"):
            run(noise, wrong)
    with pytest.raises(LatentSizeError, match="multiples of 8; got 16x12. Try 16x"):
        run(noise[:, :, :, :12], pyramid.sigmas(noise.shape))
