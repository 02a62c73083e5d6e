"""The driver: gives sections whose needs are met to workers, replaces those that die, and keeps what is finished."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import FramePackError
from ..job_file import JobFile
from ..job_run import Keys, settings_of
from .cluster import Cluster, Crew, Loading
from .decoding import Decoding, Video
from .facts import Facts, FarmError
from .graph import Graph
from .machines import checked
from .results import Results
from .worker import ENDLESS

POLL = 0.5  # seconds between two looks at the workers' progress
CROWD = 20  # workers; where there are more, each is asked less often
MOST_DEATHS = 5  # of workers in a row without a section finished between, and one more for each worker
WAITING = 3.0  # seconds after which what waits for a machine is reported, again after twice as many, and so on
TOLD = 10.0  # seconds within which Ray tells that a process died whose connection another one lost

Report = Callable[[dict[str, Any]], None]


class _CancelledError(Exception):
    """The run was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is run, and where: a job file, the model's path on the workers, the store, whether workers share it.

    `limit` are the bytes of a store that is not shared.
    """

    bundle: Path
    cluster: Cluster
    store: Path
    limit: int = ENDLESS
    model: str | None = None
    shared: bool = False
    previews: bool = False
    video: Video | None = None


@dataclass(kw_only=True)
class Driver:
    """Runs a plan on a cluster. `report` hears events as plain data; `stop` is asked whether to cancel."""

    run: Run
    report: Report = lambda event: None
    stop: Callable[[], bool] = lambda: False
    crews: list[Crew] = field(default_factory=list)
    results: Results = field(init=False)
    decoding: Decoding | None = None
    deaths: int = 0  # since the last finished section
    hired: int = 0
    computed: int = 0
    kept: int = 0  # sections that are finished, sampled or from the store
    waits: _Waiting = field(default_factory=lambda: _Waiting())
    looked: float = 0.0  # when workers were last asked for their progress
    shown: int = 0  # whose preview was asked for last

    def latents(self) -> Tensor | None:
        """The whole video's, normalised, ``b c t h w``; None where it was cancelled. Raises FramePackError."""
        job = JobFile.load(self.run.bundle)
        self.model = self.run.model or job.model
        self.job = replace(job, model=self.model)
        with self.run.cluster.connected() as ray, suppress(_CancelledError):
            self.ray = ray
            with self._probe() as probe:
                cluster = self.run.cluster
                facts = checked(cluster, ray, self.model, lambda: self._waits(*cluster.waiting), probe)
                how = {"keys": self._keys(facts), "settings": settings_of(self.job, facts.outside_noise)}
                where = {"folder": self.run.store, "limit": self.run.limit, "shared": self.run.shared}
                self.results = Results(job=self.job, **where, **how)
                self.graph = Graph.of(self.job.plan)
                self._say("begin", sections=len(self.graph.needs), widest=self.graph.widest(), device=facts.device)
                shared = {"store": str(self.run.store), "probe": str(probe)} if probe else {}
                self.loading = Loading(model=self.model, facts=facts, **shared)
                return self._run()
        self._say("cancelled", finished=self.kept)
        return None

    def _run(self) -> Tensor:
        """The latents; ends all actors."""
        try:
            self._stored()
            self._decoding()
            return self._finished(self._sampled())
        finally:
            for crew in self.crews:
                crew.end(self.ray)
            if self.decoding:
                self.decoding.end(self.ray)

    def _decoding(self) -> None:
        """Where the run makes a video: what feeds its decoder."""
        video, plan = self.run.video, self.job.plan
        kept = plan.kept_frames.start, plan.kept_frames.stop
        if video:
            self.decoding = Decoding(job=self.job, make=lambda: self.run.cluster.decoder(self.ray, video, kept))
            self.decoding.begin(self.ray, lambda: self._waits("the decoder waits", "for a machine, or for its VAE"))

    def _finished(self, latents: Tensor) -> Tensor:
        """Wait for the video too, if there is one."""
        if self.decoding and self.run.video:
            frames = self.decoding.finish(self.ray, self.results.timeline, self.run.video.out)
            self._say("video", frames=frames, file=str(self.run.video.out))
        return latents

    @contextmanager
    def _probe(self) -> Iterator[Path | None]:
        """Where workers share the store: a file in it, which all of them must see."""
        self.run.store.mkdir(parents=True, exist_ok=True)
        if not self.run.shared:
            yield None
            return
        probe = self.run.store / f"{uuid.uuid4().hex}.probe"
        try:
            probe.write_text(probe.stem, "utf-8")
            yield probe
        finally:
            probe.unlink(missing_ok=True)

    def _keys(self, facts: Facts) -> Keys:
        cluster, model = self.run.cluster, facts.model
        assert model is not None, "checked"
        place = replace(cluster.place, device=facts.device)
        return Keys(job=self.job, place=place, model=model, ranks=cluster.ranks)

    def _stored(self) -> None:
        """Take all sections that the store has, as far as their needs go."""
        looked: set[int] = set()
        while new := self.graph.ready(self.results.made, looked):
            for index in new:
                looked.add(index)
                if (found := self.results.stored(index)) is not None:
                    self._keep(index, found)

    def _sampled(self) -> Tensor:
        """Sample what is missing. Raises _CancelledError."""
        missing = len(self.graph.needs) - len(self.results.made)
        if missing:
            self.bundle, self.waits = self.ray.put(self.run.bundle.read_bytes()), _Waiting()
            for _ in range(min(self.run.cluster.workers, missing, self.graph.widest())):
                self._hire()
        while len(self.results.made) < len(self.graph.needs):
            if self.stop():
                raise _CancelledError
            self._hand_out()
            if self.decoding:
                self.decoding.feed(self.results.timeline)
            self._answered()
            self._watch()
        self._say("end", computed=self.computed, stored=len(self.graph.needs) - self.computed)
        return self.results.latents()

    def _hire(self) -> None:
        self.crews.append(self.run.cluster.crew(self.ray, self.hired, self.bundle, self.loading))
        self.hired += 1

    def _hand_out(self) -> None:
        """Give sections to workers that are free."""
        for crew in [crew for crew in self.crews if crew.ready and crew.section is None]:
            if (index := self._next()) is None:
                return
            self._say("start", section=index, worker=crew.number)
            crew.ask(index, *self.results.given(self.ray, index))

    def _next(self) -> int | None:
        """The best section to begin; those that another driver has made in the meantime are taken from the store."""
        taken = {crew.section for crew in self.crews if crew.section is not None}
        while ready := self.graph.ready(self.results.made, taken):
            if (found := self.results.stored(ready[0])) is None:
                return ready[0]
            self._keep(ready[0], found)
        return None

    def _keep(self, index: int, found: Tensor) -> None:
        """A section was in the store."""
        self.results.add(index, found)
        self.kept += 1
        self._say("stored", section=index, take=self.results.take_of(index))

    def _answered(self) -> None:
        """Take what workers have answered."""
        asked = {ref: crew for crew in self.crews for ref in crew.waits_for}
        told = {crew.told: crew for crew in self.crews if crew.told is not None}
        if not asked:
            return
        for ref in self.ray.wait([*asked, *told], num_returns=1, timeout=POLL)[0]:
            crew = asked.get(ref) or told[ref]
            try:
                answer = self.ray.get(ref)
            except self.ray.exceptions.RayError as fault:
                self._bury(crew, self._death(crew, fault))
                continue
            if ref in told:
                self._step(crew, *answer)
            else:
                self._take(crew, ref, answer)

    def _take(self, crew: Crew, ref: Any, answer: Any) -> None:
        if not crew.ready:
            crew.loaded.remove(ref)
            crew.ready = not crew.loaded
            self._say("process", worker=crew.number, pid=answer)
            return
        asked, index = crew.asked or [], crew.section
        asked.remove(ref)
        if index is not None and index not in self.results.made:
            seconds, latents = answer
            self.results.take(index, latents)
            self.computed, self.kept, self.deaths = self.computed + 1, self.kept + 1, 0
            how = {"worker": crew.number, "seconds": round(seconds, 3), "take": self.results.take_of(index)}
            self._say("section", section=index, **how)
        if not asked:
            crew.section, crew.asked = None, None

    def _death(self, crew: Crew, fault: Any) -> Exception:
        """The death of a worker that a fault is of. Raises another fault, as the pack's own error."""
        errors = self.ray.exceptions
        cause = getattr(fault, "cause", None)
        if not isinstance(fault, errors.RayTaskError):
            return fault
        if isinstance(cause, errors.RayError) and not isinstance(cause, errors.RayTaskError):
            return cause  # of the process where the others meet
        if len(crew.actors) > 1 and not isinstance(cause, FramePackError):  # it may have lost another that died
            refs = list(crew.waits_for)
            for ref in self.ray.wait(refs, num_returns=len(refs), timeout=TOLD)[0]:
                try:
                    self.ray.get(ref)
                except errors.RayTaskError:
                    continue
                except errors.RayError as death:
                    return death
        raise _own(fault, crew) from fault

    def _bury(self, crew: Crew, fault: Exception) -> None:
        """Replace a worker that died; its section is ready again."""
        self.deaths += 1
        why = f"{type(fault).__name__}: {str(fault)[:300]}"
        self._say("death", worker=crew.number, section=crew.section, why=why)
        crew.end(self.ray)
        self.crews.remove(crew)
        if self.deaths >= MOST_DEATHS + self.run.cluster.workers:
            raise FarmError(
                f"{self.deaths} workers died one after another without finishing a section. The last: {why}. Mostly "
                "memory is too small: take fewer workers on a machine, a smaller dtype, or more processes for a "
                "section (--ranks). Finished sections are kept; the same command goes on."
            )
        self._hire()

    def _watch(self) -> None:
        """Ask for steps, and report workers that wait for a machine; not more often than people look."""
        busy = [crew for crew in self.crews if crew.section is not None]
        if time.monotonic() - self.looked > POLL * (1 + len(busy) / CROWD):
            self.looked = time.monotonic()
            self.shown += 1
            for place, crew in enumerate(busy):
                if crew.told is None:  # only one preview at a time: latents travel for it
                    shown = self.run.previews and place == self.shown % len(busy)
                    crew.told = crew.actors[0].progress.remote(shown)
        if waiting := sum(not crew.ready for crew in self.crews):
            self._waits(f"{waiting} workers wait", "for a machine, or for the model to load")

    def _step(self, crew: Crew, at: tuple[int, int, int] | None, preview: Tensor | None) -> None:
        """A worker says how far it is."""
        crew.told = None
        if at is not None and at[0] == crew.section:
            more = {} if preview is None else {"preview": preview}
            self._say("step", section=at[0], step=at[1], steps=at[2], **more)

    def _waits(self, what: str, why: str) -> None:
        """Report that something waits, now and then. Raises _CancelledError."""
        if self.stop():
            raise _CancelledError
        if self.waits.due():
            self._say("waiting", what=what, why=why)

    def _say(self, event: str, **data: Any) -> None:
        self.report({"event": event, **data})


@dataclass(slots=True)
class _Waiting:
    """When a wait is to be reported: after WAITING, and then ever more rarely."""

    last: float = field(default_factory=time.monotonic)
    pause: float = WAITING

    def due(self) -> bool:
        """Is it to be reported now?"""
        if time.monotonic() - self.last < self.pause:
            return False
        self.last, self.pause = time.monotonic(), min(2 * self.pause, 60.0)
        return True


def _own(fault: Any, crew: Crew) -> Exception:
    """The pack's own error that a worker raised, or one that says what else went wrong there."""
    cause = getattr(fault, "cause", None)
    if isinstance(cause, FramePackError):
        return (
            type(cause)(str(cause)) if type(cause).__init__ is FramePackError.__init__ else FramePackError(str(cause))
        )
    which = "while it loaded the model" if crew.section is None else f"in section {crew.section + 1}"
    return FarmError(f"A worker failed {which}: {str(fault)[-600:]}")
