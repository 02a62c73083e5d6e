"""The finished sections of a run: in the section store, and as the workers are given them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..job_file import JobFile
from ..job_run import Keys
from ..pipeline import Job, Settings, by_frame, sample_sections, whole
from ..planning.outside import outside_of
from ..sampling.solvers import Callback
from ..sampling.staged import solver_named
from ..store.section_store import SectionStore
from .facts import FarmError
from .worker import ENDLESS


@dataclass(kw_only=True)
class Results:
    """Latents by section. With `shared` the workers read and write the store themselves."""

    job: JobFile
    keys: Keys
    settings: Settings
    folder: Path
    limit: int = ENDLESS  # bytes of the store; what a run has made it keeps in memory too
    shared: bool = False
    made: dict[int, Tensor] = field(default_factory=dict)
    keyed: dict[int, str] = field(default_factory=dict)
    sent: dict[int, Any] = field(default_factory=dict)  # what workers are given: a reference, or the key

    def __post_init__(self) -> None:
        self.store = SectionStore(self.folder, self.limit)
        self.timeline: dict[int | str, Tensor] = dict(self.job.anchors())
        self.users: list[list[int]] = [[] for _ in self.job.plan.sections]
        for index, section in enumerate(self.job.plan.sections):
            for need in section.needs:
                self.users[need].append(index)

    def stored(self, index: int) -> Tensor | None:
        """A section's latents from the store; all that it needs must be there. The engine itself says its key."""
        asking, section = _Asking(keys=self.keys, solver=solver_named(self.job.solver)), self.job.plan.sections[index]
        how: dict[str, Any] = {"like": self.job.like, "first": index, "outside": outside_of(self.job.plan)}
        try:
            ((_, found),) = sample_sections([section], self.timeline, asking, self.settings, **how, store=self.store)
        except _MissingError:
            found = None
        self.keyed[index] = asking.asked[0]
        return found

    def take(self, index: int, latents: Tensor | str) -> Tensor:
        """Keep what a worker made, or the latents under the key that it names. Raises FarmError where that is lost."""
        if isinstance(latents, str):
            found = self.store.get(latents)
            if found is None or latents != self.keyed[index]:
                raise FarmError(
                    f"A worker put section {index + 1} into {self.folder}, and it is not there. The folder is not the "
                    "same for all machines, or its disk is full. Choose another, or leave out --shared."
                )
            latents = found
        elif not self.store.put(self.keyed[index], latents):
            raise FarmError(f"The store {self.folder} takes no sections. Free space there, or choose another: --store.")
        self.add(index, latents)
        return latents

    def add(self, index: int, latents: Tensor) -> None:
        """A section is finished; what no other section needs any more is no longer kept for the workers."""
        self.made[index] = latents
        self.timeline |= by_frame(self.job.plan.sections[index], latents)
        for need in self.job.plan.sections[index].needs:
            if all(user in self.made for user in self.users[need]):
                self.sent.pop(need, None)

    def take_of(self, index: int) -> str:
        """A section's take, as the section store names it."""
        return self.keyed[index][:16]

    def given(self, ray: Any, index: int) -> tuple[list[int], list[Any]]:
        """The sections that a section needs, and how a worker gets them."""
        needs = list(self.job.plan.sections[index].needs)
        for need in needs:
            if need not in self.sent:
                self.sent[need] = self.keyed[need] if self.shared else ray.put(self.made[need])
        return needs, [self.sent[need] for need in needs]

    def latents(self) -> Tensor:
        """The whole video's, normalised, ``b c t h w``."""
        plan, anchors = self.job.plan, self.job.anchors()
        return whole(plan, anchors, ((plan.sections[i], made) for i, made in sorted(self.made.items())))


class _MissingError(Exception):
    """A section that is not in the store."""


@dataclass(kw_only=True)
class _Asking:
    """A sampler that samples nothing: it says which key the engine looks for."""

    keys: Keys
    solver: Any
    asked: list[str] = field(default_factory=list)

    def key(self, job: Job) -> str:
        """The section's."""
        self.asked.append(self.keys.key(job))
        return self.asked[-1]

    def sample(self, job: Job, step: Callback | None) -> Tensor:
        """Raises _MissingError: it is not in the store."""
        raise _MissingError

    def about(self, job: Job) -> dict[str, str]:
        """Nothing: nothing is stored."""
        return {}

    def normalised(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents
