"""The training loop, for every backbone and for the built-in model: draw, predict, step, save, report.

A run can stop at any moment and go on: data and noise come from (seed, step), and a state holds all else.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FramePackError
from ..nn.attention import for_training
from ..units import Geometry
from .averages import Average
from .clips import Clips
from .config import Config, Stage
from .loss import Batch, batch_of, generator_of, loss_of, moved
from .optimizers import Optimizers, trained
from .parallel import all_of, any_of, check_sequence, rank, world
from .reports import Log, Record, TensorBoard, Watcher
from .resident import Resident
from .states import States, identity
from .step_data import Draw, check, draw, part_of, positions_of
from .trainees import Recompute

log = logging.getLogger(__name__)
MOST_KEPT = 64  # clips of a step whose levels and losses the log keeps, at least
ROUNDING = -1  # the item number of the noise that rounds weights

Words = Callable[[list[str]], Mapping[str, Tensor]]
Before = Callable[[int], None]  # called with a stage's index before its first step
Sampler = Callable[[int], None]  # called with a step after which samples are due


class DivergedError(FramePackError):
    """The loss is no longer finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A step that is done whose levels and losses, ``b`` each, are still on the device.

    `sequence` processes have the same. `sound` is True there where its losses and gradients are finite; None where
    a run stops at the first that is not.
    """

    step: int
    schedule: str
    rate: float
    levels: Tensor
    losses: Tensor
    sound: Tensor | None = None
    sequence: int = 1

    @property
    def skipped(self) -> bool:
        """Did its gradient count as zero?"""
        return self.sound is not None and not self.sound.item()

    def record(self) -> Record:
        """Read them. Raises DivergedError."""
        levels, losses = (all_of(each.tolist(), self.sequence) for each in (self.levels, self.losses))
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss of step {self.step} is {loss}. The last state is whole. Lower stage.rate, or use "
                "compute = 'fp32'."
            )
        some = slice(None, None, max(len(losses) // MOST_KEPT, 1))  # levels ascend over the clips
        return Record(
            step=self.step,
            schedule=self.schedule,
            rate=self.rate,
            loss=loss,
            levels=levels[some],
            losses=losses[some],
        )


class Trainer:
    """One run: a model, its clips and texts, and the configuration. `base` identifies the weights it starts from."""

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        clips: Clips,
        words: Words,
        base: str = "",
        recompute: Recompute | None = None,
    ):
        self.config, self.model, self.clips, self.words = config, model, clips, words
        self.recompute = recompute
        self.average = Average(config.run.ema) if config.run.ema else None
        self.optimizers: Optimizers | None = None
        self.done, self.skipped = 0, 0
        if config.run.skips and world() > 1:
            raise FramePackError("run.skips is not available for several processes. Set it to 0.")
        check_sequence(config.run.sequence)
        data = sha256(repr(clips.index.clips).encode()).hexdigest()[:16]
        for stage in config.stage:
            check(stage.mixture, clips)
            for share in stage.mixture:
                self._check_batch(share.batch or config.run.batch)
        positions = positions_of((share for stage in config.stage for share in stage.mixture), clips)
        about = {**identity(config), "base": base, "clips": data, "positions": list(positions)}
        self.states = States(config.run.out / "states", about, config.run.keep, config.run.other_world)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def geometry(self) -> Geometry:
        """How the model's latents lie in tokens."""
        return self.model.dit.spec.geometry

    @property
    def groups(self) -> int:
        """How many parts the batch has: one for each process, or for those that share each clip."""
        return world() // self.config.run.sequence

    def _check_batch(self, batch: int) -> None:
        if batch % self.groups:
            raise FramePackError(
                f"A batch of {batch} cannot be shared by {self.groups} processes. Use a multiple of {self.groups}."
            )

    def resume(self, before: Before | None = None) -> None:
        """Take up the newest state, if there is one. Raises StateError where it is another run's."""
        path = self.states.newest()
        self.done = int(path.name) if path else 0
        if path is None:
            return
        index, stage, own_step = self.config.at(min(self.done, self.config.steps - 1))
        self._begin(index)
        if own_step and self.done < self.config.steps:
            assert self.optimizers is not None
            stored = {key.removeprefix("optimizers.").rpartition(".")[0] for key in self.states.stored(path)}
            self.optimizers.begin(stored & self.optimizers.named.keys())
        else:  # the next stage has optimizers of its own
            self.optimizers = None
        self.states.load(path, self._state())
        if self.optimizers:
            self.optimizers.loaded()
        log.info("resumed after step %d", self.done)

    def _begin(self, index: int) -> None:
        """Make ready for a stage."""
        named = trained(self.model, self.config.trains(self.config.stage[index]))
        if not named:
            raise FramePackError(f"stage.train {self.config.stage[index].train!r:.60} matches no parameter.")
        self.optimizers = Optimizers(named, self.config.stage[index], self.config.model.weights == "fp32")
        if self.average:
            self.average.follow(self._ever_trained())

    def _ever_trained(self) -> dict[str, nn.Parameter]:
        """The parameters that any stage trains."""
        return {name: p for stage in self.config.stage for name, p in self.trained_by(stage).items()}

    def trained_by(self, stage: Stage) -> dict[str, nn.Parameter]:
        """The parameters that a stage trains; the model stays as it is."""
        with self.as_in(stage, self.config):
            return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @contextmanager
    def as_in(self, stage: Stage, config: Config) -> Iterator[None]:
        """The model as a stage of a configuration trains it, inside the block."""
        flags = [(p, p.requires_grad) for p in self.model.parameters()]
        recompute, before = self.recompute, self.recompute and self.recompute.on
        trained(self.model, config.trains(stage))
        if recompute:
            recompute.on = config.model.checkpointing
        try:
            yield
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            if recompute:
                recompute.on = bool(before)

    def mean_in_place(self) -> AbstractContextManager[None]:
        """The model has the running mean for its weights inside the block, where the run keeps one."""
        return self.average.in_place(self.model) if self.average else nullcontext()

    def _state(self) -> dict[str, Any]:
        weights = self._ever_trained() | (self.optimizers.weights if self.optimizers else {})
        state: dict[str, Any] = {"model": {name: p.data for name, p in weights.items()}}
        if self.optimizers:
            state["optimizers"] = self.optimizers.state()
        if self.average:
            state["average"] = self.average.mean
        return state

    def save(self) -> None:
        """Write the state. Raises StateError where the disk does not take it."""
        self.states.save(self.done, self._state())

    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        watchers: Sequence[Watcher] = (),
        before: Before | None = None,
        sample: Sampler | None = None,
    ) -> bool:
        """Train from the newest state to the end, or until `stop` says so; the state is saved then, too.

        True where the run is complete.
        """
        run = self.config.run
        self.resume()
        journal = Log(run.out / "log.jsonl", self.config.steps, run.report_every, self.done) if rank() == 0 else None
        watchers = [
            *watchers,
            *([TensorBoard(run.out / "tensorboard", self.done)] if run.tensorboard and journal else []),
        ]
        waiting: deque[Unread] = deque()
        while self.done < self.config.steps and not any_of(stop()):
            waiting.append(self.advance(before))
            due = self.done % run.save_every == 0 or self.done == self.config.steps
            if due or len(waiting) >= run.read_every:
                self._read(waiting, journal, watchers)
            if due:
                self.save()
            if sample and self.config.samples.every and self.done % self.config.samples.every == 0:
                sample(self.done)
        self._read(waiting, journal, watchers)
        if self.done < self.config.steps and self.optimizers:
            self.save()
        if journal:
            journal.close()
        return self.done == self.config.steps

    def _read(self, waiting: deque[Unread], journal: Log | None, watchers: Sequence[Watcher]) -> None:
        """Read what the steps left on the device, and pass it on. Raises DivergedError."""
        while waiting:
            unread = waiting.popleft()
            if self.left_out(unread):
                continue
            record = unread.record()
            if journal:
                line = journal.add(record)
                for watcher in watchers:
                    watcher.step(record, line)

    def left_out(self, unread: Unread) -> bool:
        """Was the step without a finite loss or gradient? Raises DivergedError where there are too many such."""
        if not unread.skipped:
            return False
        self.skipped += 1
        log.warning("step %d (%s): not finite, left out (%d so far)", unread.step, unread.schedule, self.skipped)
        if self.skipped > self.config.run.skips:
            raise DivergedError(
                f"{self.skipped} steps had a loss or a gradient that is not finite, the last of them step "
                f"{unread.step}; run.skips allows {self.config.run.skips}. Lower stage.rate, or use compute = 'fp32'."
            )
        return True

    def step(self, before: Before | None = None) -> Record:
        """One optimization step. Raises DivergedError."""
        return self.advance(before).record()

    def advance(self, before: Before | None = None) -> Unread:
        """One optimization step; it waits for the device only where losses are read after every step."""
        index, stage, own_step = self.config.at(self.done)
        if own_step == 0 or self.optimizers is None:
            if before and own_step == 0:
                before(index)
            self._begin(index)
        assert self.optimizers is not None
        run, rate = self.config.run, stage.rate_at(own_step)
        drawn = draw(self.config, self.done, self.clips)
        levels, losses = self.backward(drawn)
        told = {"schedule": drawn.share.label, "rate": rate, "sequence": run.sequence}
        taken = Unread(step=self.done + 1, levels=levels, losses=losses, **told)
        if run.read_every == 1 and not run.skips:
            taken.record()  # a loss that is not finite leaves the weights alone
        if run.clip:
            nn.utils.clip_grad_norm_(self.optimizers.named.values(), run.clip)
        if run.skips:
            taken = replace(taken, sound=_made_sound(self.optimizers.named.values(), losses))
        source = torch.Generator(self.device)
        source.manual_seed(generator_of(run.seed, self.done, ROUNDING).initial_seed())
        self.optimizers.step(rate, source)
        if self.average:
            self.average.take(self.optimizers.weights, self.done)
        self.done += 1
        return taken

    def backward(self, drawn: Draw) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss over all clips; the level and loss of each of this process's, ``b``, in order."""
        total, run = len(drawn.clips), self.config.run
        each, group = total // self.groups, rank() // run.sequence
        levels, losses = [], []
        for places in _parts(range(group * each, (group + 1) * each), run.at_once or each):
            some = part_of(drawn, places)
            batch = self._batch(some, places, total)
            batch, words = moved(batch, self.words(list(some.captions)), self.device, self.config.model.dtype)
            with for_training():
                loss = loss_of(self.model, batch, words)
                if loss.requires_grad:  # packing layers have no part in a section that sees nothing
                    # gradients are averaged over processes, and those of a group add up
                    (run.sequence * loss.sum() / each).backward()
            levels.append(batch.sigma.detach())
            losses.append(loss.detach())
        return torch.cat(levels), torch.cat(losses)

    def _batch(self, drawn: Draw, places: range, of: int) -> Batch:
        """The batch of a part of a step's clips, whose `places` are their numbers among all of them."""
        seed, history, geometry = self.config.run.seed, self.config.history, self.geometry
        if isinstance(self.clips, Resident):
            return self.clips.batch(drawn, history, seed, self.done, places, of=of, geometry=geometry)
        sources = [generator_of(seed, self.done, place) for place in places]
        return batch_of(drawn, self.clips, history, sources, places, of=of, geometry=geometry)


def _made_sound(parameters: Iterable[nn.Parameter], losses: Tensor) -> Tensor:
    """Are losses and gradients finite, on their device? Where one is not, all gradients become zero."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sound = losses.isfinite().all()
    if grads:
        sound = sound & nn.utils.get_total_norm(grads).isfinite()
    for grad in grads:
        grad.masked_fill_(~sound, 0)
    return sound


def _parts(places: range, size: int) -> Iterator[range]:
    return (places[i : i + size] for i in range(0, len(places), size))
