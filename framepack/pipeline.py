"""The engine: a plan, or a slice of one, section by section. Nodes, training, evaluation and the command line drive it.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import LostTakeError, PlanError, SamplingError
from .packing.history import ContextGroup
from .packing.seeing import Late, Seen, Turning, View
from .packing.treatment import UNTREATED, Treatment
from .planning.outside import Outside, outside_of
from .planning.plan import Plan
from .planning.section import Section
from .planning.takes import Take, Takes
from .sampling.draws import BySection, Draws, InTurn, Levels, Retaken, noised
from .sampling.guidance import UNGUIDED, Guidance, sees
from .sampling.progress import Progress, Quiet
from .sampling.solvers import Callback, euler
from .sampling.staged import own_draws, own_options, own_sigmas
from .schedule.grammar import parse
from .store.section_store import SectionStore
from .units import RELEASED

Sample = Callable[[Section, list[ContextGroup], int], Tensor]
Solver = Callable[..., Tensor]  # velocity, latents at sigmas[0], sigmas, callback -> latents
Timeline = Mapping[int | str, Tensor]  # latents ``b c 1 h w`` by latent frame or slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that one section, number `index` of its plan, is sampled from.

    `seed` is for samplers that draw noise too; `generator` is the one that drew the section's noise, and goes on. With
    `late`, `history` is for the first steps. `lock` names the finished take that it is,
    whatever it would be sampled from.
    """

    section: Section
    index: int
    seed: int
    noise: Tensor  # b c t h w
    sigmas: Tensor
    history: list[ContextGroup]
    late: Late | None = None
    generator: torch.Generator | None = None
    lock: str | None = None


class Sampler(Protocol):
    """Samples one section: a denoiser with a solver, or a host."""

    def key(self, job: Job) -> str | None:
        """What the section is stored under; None where it cannot be."""
        ...

    @property
    def solver(self) -> Any:
        """The pack's solver, which may have noise levels of its own and draw noise; None for another's."""
        ...

    def about(self, job: Job) -> Mapping[str, str]:
        """What is stored beside the section, for its user; `context` tells whether another's history is the same."""
        ...

    def sample(self, job: Job, step: Callback | None) -> Tensor:
        """The section's latents, ``b c t h w``. `step` is called after each step."""
        ...

    def normalised(self, latents: Tensor) -> Tensor:
        """Sampled latents as the model sees them in a history."""
        ...


class Denoiser(Protocol):
    """Predicts velocities, one for each pass that guidance asks for."""

    def __call__(self, x: Tensor, sigma: Tensor, passes: Sequence[str], **given: Any) -> Sequence[Tensor]:
        """x ``b c t h w`` at a noise level; `given` is the section's prompt, positions and history."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSampler:
    """A denoiser, a solver and guidance. Its latents are normalised, and it stores none."""

    denoiser: Denoiser
    solver: Solver = euler
    guidance: Guidance = UNGUIDED

    def key(self, job: Job) -> str | None:
        """None: a denoiser has no contents to digest."""
        return None

    def about(self, job: Job) -> Mapping[str, str]:
        """Nothing."""
        return {}

    @torch.no_grad()
    def sample(self, job: Job, step: Callback | None) -> Tensor:
        """The solver's result from the job's noise."""
        seen, turning = sees(job.history), Turning(job.history, job.late, job.sigmas)
        given = {"prompt": job.section.prompt, "positions": job.section.positions}

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            turning.turns(float(sigma))
            history = turning.history
            v = self.guidance.guided(
                float(sigma), seen, lambda passes: self.denoiser(x, sigma, passes, history=history, **given)
            )
            if turning.late:
                turning.saw(x - sigma * v)
            return v

        options = own_options(self.solver, job.generator, self.guidance.cfg != 1)
        return self.solver(velocity, job.sigmas[0] * job.noise, job.sigmas, step, **options)

    def normalised(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The seed, and the noise levels: given, or the solver's own for so many steps; `patch` is a patch's side.

    `treatment` is what is done to history, with a codebook in normalised latents. `item` is the place of one video in
    a batch, and the batch's size, where it is sampled apart from the others but with the noise that it has among them.
    `outside_noise` is what the model gives to latents from outside, if it does. `takes` are by
    section index.
    """

    seed: int = 0
    steps: int = 25
    sigmas: Tensor | None = None
    patch: int = RELEASED.patch
    treatment: Treatment = UNTREATED
    item: tuple[int, int] | None = None
    outside_noise: Levels | None = None
    takes: Takes = field(default_factory=dict)

    def job(self, seen: Seen, index: int, drawing: Drawing) -> Job:
        """A section's job. The run's solver may have noise levels of its own."""
        noise, generator = drawing.section(index, seen.section.num_lat_frames)
        sigmas = self.sigmas
        if sigmas is None:
            sigmas = own_sigmas(drawing.solver, self.steps, noise.shape, first=index == 0, patch=self.patch)
        take = self.takes.get(index, Take())
        seed = self.seed if take.seed is None else take.seed
        how: dict[str, Any] = {"noise": noise, "generator": generator, "history": seen.history, "late": seen.late}
        return Job(section=seen.section, index=index, seed=seed, sigmas=sigmas, lock=take.lock, **how)

    def view(self, timeline: Timeline, like: Tensor, index: int) -> View:
        """How a section, number `index` of its plan, sees a timeline of normalised latents."""
        return View(timeline=timeline, like=like, index=index, seed=self.seed, treatment=self.treatment)

    def drawing(self, solver: Any, like: Tensor, in_turn: bool) -> Drawing:
        """How noise is drawn: from a generator for each section, or from one for all."""
        draws: Draws = InTurn(self.seed) if in_turn else BySection(self.seed)
        draws = Retaken(draws, self.takes) if self.takes else draws
        return Drawing(draws=draws, solver=solver, like=like, item=self.item or (0, len(like)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How a run draws noise in the shapes of its sections.

    `like` states batch, channels and grid; `item` is as in Settings.
    """

    draws: Draws
    solver: Any
    like: Tensor
    item: tuple[int, int]

    def section(self, index: int, num_lat_frames: int) -> tuple[Tensor, torch.Generator]:
        """A section's noise, and the generator for what its solver draws."""
        place, batch = self.item
        shape = (batch, self.like.shape[1], num_lat_frames, *self.like.shape[3:])
        noise, generator = self.draws.section(index, shape, lambda shape: own_draws(self.solver, shape))
        return noise[place : place + len(self.like)], generator


def sample_sections(
    sections: Iterable[Section],
    timeline: Timeline,
    sampler: Sampler,
    settings: Settings,
    *,
    like: Tensor,
    first: int = 0,
    drawn: Sequence[int] | None = None,
    outside: Sequence[Outside] = (),
    store: SectionStore | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Section, Tensor]]:
    """Each section with its latents ``b c t h w``, as it is finished.

    `timeline` holds the latents that they look at, normalised; `like` states batch, channels and grid; `first`, `drawn`
    and `outside` are as a PlanSlice's. Raises PlanError, LatentSizeError, and SamplingError for a section that is not
    finite.
    """
    drawing = settings.drawing(sampler.solver, like, in_turn=drawn is not None)
    known = noised(timeline, outside, settings.outside_noise, drawing.draws, like)
    for index, num in enumerate(drawn or ()):
        drawing.section(index, num)  # those before this slice

    for index, section in enumerate(sections, first):
        job = settings.job(settings.view(known, like, index).seen(section), index, drawing)
        made = finished(job, sampler, store, progress or Quiet())
        known |= by_frame(section, sampler.normalised(made))
        yield section, made


def finished(job: Job, sampler: Sampler, store: SectionStore | None, progress: Progress) -> Tensor:
    """A section's latents: its locked take, from the store, or else sampled, checked and stored."""
    if job.lock:
        return _locked(job, sampler, store, progress)
    key = sampler.key(job) if store else None
    if store and key and (found := store.get(key)) is not None and found.shape == job.noise.shape:
        progress.loaded(job)
        progress.done(job, key)
        return found
    made = sampler.sample(job, progress.begin(job))
    check_finite(made, job.index)
    stored = store is not None and key is not None and store.put(key, made, sampler.about(job))
    progress.done(job, key if stored else None)
    return made


def _locked(job: Job, sampler: Sampler, store: SectionStore | None, progress: Progress) -> Tensor:
    """A section's locked take. Raises LostTakeError."""
    found = store.take(job.lock or "") if store else None
    if found is None:
        raise LostTakeError(
            job.index, job.lock or "", "is not in the section store: it was cleared, or the store is off"
        )
    latents, said = found
    if latents.shape != job.noise.shape:
        raise LostTakeError(job.index, job.lock or "", "has another size or length than the section")
    progress.locked(job, seam=said.get("context") != sampler.about(job).get("context"))
    progress.done(job, job.lock)
    return latents


def generate(
    plan: Plan,
    anchors: Timeline,
    sampler: Sampler,
    settings: Settings,
    *,
    like: Tensor,
    in_turn: bool = False,
    store: SectionStore | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """A whole plan's latents ``b c t h w``. `anchors` are like the sampler's latents; see sample_sections.

    Raises as that does, and PlanError for a schedule with +d without a codebook.
    """
    if parse(plan.schedule).discrete and settings.treatment.codebook is None:
        raise PlanError(
            f"The schedule {plan.schedule} asks for discrete history, and there is no codebook. Give one, or remove +d."
        )
    timeline = {frame: sampler.normalised(latent) for frame, latent in anchors.items()}
    how: dict[str, Any] = {"like": like, "store": store, "progress": progress, "outside": outside_of(plan)}
    how["drawn"] = () if in_turn else None
    return whole(plan, anchors, sample_sections(plan.sections, timeline, sampler, settings, **how))


def by_frame(section: Section, made: Tensor) -> dict[int | str, Tensor]:
    """A section's latents ``b c t h w`` as ``b c 1 h w`` by latent frame."""
    return {frame: made[:, :, i : i + 1] for i, frame in enumerate(section.made)}


def run_sections(
    sections: Iterable[Section], timeline: Timeline, sample: Sample, like: Tensor
) -> Iterator[tuple[Section, Tensor]]:
    """Each section with the latents that `sample` gives for its context; they are context of the sections after it.

    A history that is chosen by the section's first steps is the nearest in time here.
    """
    known = dict(timeline)
    for index, section in enumerate(sections):
        seen = View(timeline=known, like=like).seen(section)
        made = sample(seen.section, seen.history, index)
        known |= by_frame(section, made)
        yield section, made


def run_plan(plan: Plan, anchors: Timeline, sample: Sample, like: Tensor) -> Tensor:
    """A whole plan's latents ``b c t h w`` from a function that gives a section's latents for its context.

    `anchors` holds latents ``b c 1 h w`` by frame or slot; `like` states batch, channels and grid.
    """
    return whole(plan, anchors, run_sections(plan.sections, anchors, sample, like))


def whole(plan: Plan, anchors: Timeline, finished: Iterable[tuple[Section, Tensor]]) -> Tensor:
    """Anchors and finished sections in order of time, ``b c t h w``."""
    frames = dict(anchors)
    for section, made in finished:
        frames |= by_frame(section, made)
    return torch.cat([frames[frame] for frame in range(plan.num_lat_frames)], 2)


def section_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of a section, which its seed and index alone decide, so that an edit elsewhere leaves it unchanged."""
    return BySection(seed).section(index, shape, lambda shape: ())[0]


def check_finite(latents: Tensor, index: int) -> None:
    """Raises SamplingError where a section, number `index` of its plan, is not finite: no video comes of it."""
    if torch.isfinite(latents).all():
        return
    share = 100 * (1 - float(torch.isfinite(latents).float().mean()))
    raise SamplingError(
        f"Section {index + 1} is not finite: {share:.3g} % of its values are NaN or infinite. Likely causes: a number "
        "format that overflows (weight_dtype, attention), noise levels that the model does not know (sigmas), or a "
        "LoRA that is too strong. Try weight_dtype bf16 or fp32, attention sdpa, no sigmas, and each LoRA at a lower "
        "strength."
    )
