"""The driver: gives sections whose needs are met to workers, replaces those that die, and keeps what is finished."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import FramePackError
from ..job_file import JobFile
from ..job_run import Keys, settings_of
from .cluster import Cluster, Crew
from .decoding import Decoding, Video
from .facts import Facts, FarmError, check, pack_version
from .graph import Graph
from .results import Results

POLL = 0.5  # seconds between two looks at the workers' progress
MOST_DEATHS = 5  # of workers, one after another, without a section finished between
WAITING = 3.0  # seconds after which a worker without a machine is reported

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is run, and where: a job file, the model's path on the workers, the store, whether workers share it."""

    bundle: Path
    cluster: Cluster
    store: Path
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
    deaths: int = 0  # since the last finished section
    computed: int = 0
    began: float = 0.0
    looked: float = 0.0  # when workers were last asked for their progress

    def latents(self) -> Tensor | None:
        """The whole video's, normalised, ``b c t h w``; None where it was cancelled. Raises FramePackError."""
        job = JobFile.load(self.run.bundle)
        self.model = self.run.model or job.model
        self.job = replace(job, model=self.model)
        if self.run.video:
            self.run.video.check()
        with self.run.cluster.connected() as ray:
            self.ray = ray
            self.facts = facts = self._checked()
            how = {"keys": self._keys(facts), "settings": settings_of(self.job, facts.outside_noise)}
            self.results = Results(job=self.job, folder=self.run.store, shared=self.run.shared, **how)
            self.graph = Graph.of(self.job.plan)
            self._say("begin", sections=len(self.graph.needs), widest=self.graph.widest(), device=facts.device)
            try:
                self._decoding()
                self._stored()
                return self._finished(self._sampled())
            finally:
                for crew in self.crews:
                    crew.end(ray)

    def _decoding(self) -> None:
        """Where the run makes a video: what feeds its decoder."""
        video, plan = self.run.video, self.job.plan
        kept = plan.kept_frames.start, plan.kept_frames.stop
        make = (lambda: self.run.cluster.decoder(self.ray, video, kept)) if video else None
        self.decoding = Decoding(job=self.job, make=make) if video else None

    def _finished(self, latents: Tensor | None) -> Tensor | None:
        """Wait for the video too, if there is one."""
        if latents is not None and self.decoding and self.run.video:
            frames = self.decoding.finish(self.ray, self.results.timeline)
            self._say("video", frames=frames, file=str(self.run.video.out))
        return latents

    def _checked(self) -> Facts:
        """Facts that all machines share. Raises FarmError before anything is computed."""
        token = uuid.uuid4().hex if self.run.shared else None
        self.run.store.mkdir(parents=True, exist_ok=True)
        probe = self.run.store / f"{token}.probe"
        try:
            if token:
                probe.write_text(token, "utf-8")
            found = self._machines(str(probe) if token else None)
        finally:
            if token:
                probe.unlink(missing_ok=True)
        check(found, self.model, self.run.store, token)
        here = replace(found[0], machine="the driver", pack=pack_version())
        check([here, *found], self.model)
        return found[0]

    def _machines(self, probe: str | None) -> list[Facts]:
        """What every machine says; waits for the first one of a cluster that grows by itself."""
        while not (found := self.run.cluster.facts(self.ray, self.model, probe)):
            if self.stop():
                raise FarmError("Cancelled while it waited for a machine.")
            self._say("waiting", workers=self.run.cluster.workers, why="for a machine with a GPU")
            time.sleep(WAITING)
        return found

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
                    self.results.add(index, found)
                    self._say("stored", section=index)

    def _sampled(self) -> Tensor | None:
        """Sample what is missing."""
        missing = len(self.graph.needs) - len(self.results.made)
        if missing:
            self.bundle = self.ray.put(self.run.bundle.read_bytes())
            self.began = time.monotonic()
            for _ in range(min(self.run.cluster.workers, missing, self.graph.widest())):
                self._hire()
        while len(self.results.made) < len(self.graph.needs):
            if self.stop():
                self._say("cancelled", finished=len(self.results.made))
                return None
            self._hand_out()
            if self.decoding:
                self.decoding.feed(self.results.timeline)
            self._answered()
            self._watch()
        self._say("end", computed=self.computed, stored=len(self.graph.needs) - self.computed)
        return self.results.latents()

    def _hire(self) -> None:
        shared = self.run.store if self.run.shared else None
        self.crews.append(self.run.cluster.crew(self.ray, self.bundle, self.model, self.facts, shared))

    def _hand_out(self) -> None:
        """Give sections to workers that are free."""
        taken = {crew.section for crew in self.crews if crew.section is not None}
        free = [crew for crew in self.crews if crew.ready and crew.section is None]
        for crew, index in zip(free, self.graph.ready(self.results.made, taken), strict=False):
            if (found := self.results.stored(index)) is not None:  # another driver made it in the meantime
                self.results.add(index, found)
                self._say("stored", section=index)
                continue
            self._say("start", section=index, worker=self.crews.index(crew))
            crew.ask(index, *self.results.given(self.ray, index))

    def _answered(self) -> None:
        """Take what workers have answered."""
        asked = {ref: crew for crew in self.crews for ref in crew.waits_for}
        if not asked:
            return
        done, _ = self.ray.wait(list(asked), num_returns=1, timeout=POLL)
        for ref in done:
            crew = asked[ref]
            if crew not in self.crews:  # it has died since
                continue
            try:
                answer = self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as fault:
                raise _own(fault, crew) from fault
            except self.ray.exceptions.RayError as fault:
                self._bury(crew, fault)
                continue
            self._take(crew, ref, answer)

    def _take(self, crew: Crew, ref: Any, answer: Any) -> None:
        if not crew.ready:
            crew.loaded.remove(ref)
            crew.ready = not crew.loaded
            self._say("process", worker=self.crews.index(crew), pid=answer)
            return
        asked, index = crew.asked or [], crew.section
        asked.remove(ref)
        if index is not None and index not in self.results.made:
            seconds, latents = answer
            self.results.take(index, latents)
            self.computed, self.deaths = self.computed + 1, 0
            self._say("section", section=index, worker=self.crews.index(crew), seconds=round(seconds, 3))
        if not asked:
            crew.section, crew.asked = None, None

    def _bury(self, crew: Crew, fault: Exception) -> None:
        """Replace a worker that died; its section is ready again."""
        self.deaths += 1
        why = f"{type(fault).__name__}: {str(fault)[:300]}"
        self._say("death", worker=self.crews.index(crew), section=crew.section, why=why)
        crew.end(self.ray)
        self.crews.remove(crew)
        if self.deaths >= MOST_DEATHS:
            raise FarmError(
                f"{self.deaths} workers died one after another without finishing a section. The last: {why}. Mostly "
                "memory is too small: take fewer workers on a machine, a smaller dtype, or more processes for a "
                "section (--ranks). Finished sections are kept; the same command goes on."
            )
        self._hire()

    def _watch(self) -> None:
        """Report steps, and workers that wait for a machine; not more often than people look."""
        if time.monotonic() - self.looked < POLL:
            return
        self.looked = time.monotonic()
        busy = [crew for crew in self.crews if crew.section is not None]
        asked = [crew.actors[0].progress.remote(self.run.previews) for crew in busy]
        told = self.ray.wait(asked, num_returns=len(asked), timeout=POLL)[0] if asked else []
        for ref in told:
            with suppress(self.ray.exceptions.RayError):
                at, preview = self.ray.get(ref)
                if at is not None:
                    more = {} if preview is None else {"preview": preview}
                    self._say("step", section=at[0], step=at[1], steps=at[2], **more)
        waiting = sum(not crew.ready for crew in self.crews)
        if waiting and time.monotonic() - self.began > WAITING:
            self.began = time.monotonic()
            self._say("waiting", workers=waiting, why="for a machine, or for the model to load")

    def _say(self, event: str, **data: Any) -> None:
        self.report({"event": event, **data})


def _own(fault: Any, crew: Crew) -> Exception:
    """The pack's own error that a worker raised, or one that says what else went wrong there."""
    cause = getattr(fault, "cause", None)
    if isinstance(cause, FramePackError):
        return (
            type(cause)(str(cause)) if type(cause).__init__ is FramePackError.__init__ else FramePackError(str(cause))
        )
    which = "while it loaded the model" if crew.section is None else f"in section {crew.section + 1}"
    return FarmError(f"A worker failed {which}: {str(fault)[-600:]}")
