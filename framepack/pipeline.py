"""The engine: a plan, or a slice of one, section by section. Nodes, training, evaluation and the command line drive it.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import SamplingError
from .packing.history import ContextGroup
from .packing.seeing import Late, Seen, Turning, View
from .packing.treatment import UNTREATED, Treatment
from .planning.plan import Plan
from .planning.section import Section
from .sampling.guidance import UNGUIDED, Guidance, sees
from .sampling.sigmas import flow_sigmas
from .sampling.solvers import Callback, Velocity, euler
from .store.section_store import SectionStore
from .units import BASE, RELEASED

Sample = Callable[[Section, list[ContextGroup], int], Tensor]
Solver = Callable[[Velocity, Tensor, Tensor, Callback | None], Tensor]  # velocity, noise, sigmas, callback -> latents
Timeline = Mapping[int | str, Tensor]  # latents ``b c 1 h w`` by latent frame or slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that one section, number `index` of its plan, is sampled from. `seed` is for samplers that draw noise too.

    With `late`, `history` is for the first steps.
    """

    section: Section
    index: int
    seed: int
    noise: Tensor  # b c t h w
    sigmas: Tensor
    history: list[ContextGroup]
    late: Late | None = None


class Sampler(Protocol):
    """Samples one section: a denoiser with a solver, or a host."""

    def key(self, job: Job) -> str | None:
        """What the section is stored under; None where it cannot be."""
        ...

    def sample(self, job: Job, step: Callback | None) -> Tensor:
        """The section's latents, ``b c t h w``. `step` is called after each step."""
        ...

    def normalised(self, latents: Tensor) -> Tensor:
        """Sampled latents as the model sees them in a history."""
        ...


class Progress(Protocol):
    """Hears how a plan proceeds."""

    def begin(self, job: Job) -> Callback | None:
        """A section is about to be sampled; hears each of its steps."""
        ...

    def loaded(self, job: Job) -> None:
        """A section came from the store."""
        ...


class Quiet:
    """A progress that nobody sees."""

    def begin(self, job: Job) -> None:
        """Nothing."""

    def loaded(self, job: Job) -> None:
        """Nothing."""


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

        return self.solver(velocity, job.noise, job.sigmas, step)

    def normalised(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The seed, and the noise levels: given, or the model's own for so many steps; `patch` is a patch's side.

    `treatment` is what is done to history, with a codebook in normalised latents. `item` is the place of one video in
    a batch, and the batch's size, where it is sampled apart from the others but with the noise that it has among them.
    """

    seed: int = 0
    steps: int = 25
    sigmas: Tensor | None = None
    patch: int = RELEASED.patch
    treatment: Treatment = UNTREATED
    item: tuple[int, int] | None = None

    def job(self, seen: Seen, index: int, like: Tensor, drawn: Sequence[int] | None) -> Job:
        """A section's job; `like` states batch, channels and grid, `drawn` is as a slice's."""
        section, (place, batch) = seen.section, self.item or (0, len(like))
        shape = (batch, like.shape[1], section.num_lat_frames, *like.shape[3:])
        noise = section_noise(self.seed, index, shape) if drawn is None else noise_in_turn(self.seed, drawn, shape)
        noise, sigmas = noise[place : place + len(like)], self.sigmas
        if sigmas is None:
            sigmas = flow_sigmas(self.steps, BASE.num_tokens(section.num_lat_frames, *like.shape[3:], self.patch))
        how = {"history": seen.history, "late": seen.late}
        return Job(section=section, index=index, seed=self.seed, noise=noise, sigmas=sigmas, **how)

    def view(self, timeline: Timeline, like: Tensor, index: int) -> View:
        """How a section, number `index` of its plan, sees a timeline of normalised latents."""
        return View(timeline=timeline, like=like, index=index, seed=self.seed, treatment=self.treatment)


def sample_sections(
    sections: Iterable[Section],
    timeline: Timeline,
    sampler: Sampler,
    settings: Settings,
    *,
    like: Tensor,
    first: int = 0,
    drawn: Sequence[int] | None = None,
    store: SectionStore | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Section, Tensor]]:
    """Each section with its latents ``b c t h w``, as it is finished.

    `timeline` holds the latents that they look at, normalised; `like` states batch, channels and grid; `first` and
    `drawn` are as a PlanSlice's. Raises PlanError, LatentSizeError, and SamplingError for a section that is not finite.
    """
    turns = None if drawn is None else list(drawn)

    known = dict(timeline)
    for index, section in enumerate(sections, first):
        job = settings.job(settings.view(known, like, index).seen(section), index, like, turns)
        if turns is not None:
            turns.append(section.num_lat_frames)
        made = finished(job, sampler, store, progress or Quiet())
        known |= by_frame(section, sampler.normalised(made))
        yield section, made


def finished(job: Job, sampler: Sampler, store: SectionStore | None, progress: Progress) -> Tensor:
    """A section's latents from the store, or else sampled, checked and stored."""
    key = sampler.key(job) if store else None
    if store and key and (found := store.get(key)) is not None and found.shape == job.noise.shape:
        progress.loaded(job)
        return found
    made = sampler.sample(job, progress.begin(job))
    check_finite(made, job.index)
    if store and key:
        store.put(key, made)
    return made


def generate(
    plan: Plan,
    anchors: Timeline,
    sampler: Sampler,
    settings: Settings,
    *,
    like: Tensor,
    store: SectionStore | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """A whole plan's latents ``b c t h w``. `anchors` are like the sampler's latents; see sample_sections."""
    timeline = {frame: sampler.normalised(latent) for frame, latent in anchors.items()}
    how: dict[str, Any] = {"like": like, "store": store, "progress": progress}
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
    generator = torch.Generator("cpu").manual_seed((seed * 0x9E3779B97F4A7C15 + index + 1) % 2**63)
    return torch.randn(shape, generator=generator)


def noise_in_turn(seed: int, drawn: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Noise of a section as the released implementation has it: one generator, from which every section draws.

    `drawn` are the latent frames ``t`` of the sections that drew before, in shapes otherwise like ``b c t h w``.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for num_lat_frames in drawn:
        torch.randn((*shape[:2], num_lat_frames, *shape[3:]), generator=generator)
    return torch.randn(shape, generator=generator)


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
