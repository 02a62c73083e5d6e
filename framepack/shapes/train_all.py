"""Make the built-in model with one command: VAE, latents, text encoder and DiT, and its files.

    python -m framepack.shapes.train_all RUN [--from FOLDER] [--minutes 150] [--device cuda --fit] [--discrete]

Each of the three stages takes at most `--minutes` and is saved then; the same command goes on. With `--fit` the whole
run takes so long: every stage is cut to what fits, VAE and encoding to `--vae` and `--encode` seconds where they are
given. `--from framepack/shapes/assets` trains the model that comes with the pack further, with the last stage of each
recipe; with `--decoder` only the decoder of its VAE, which leaves the latents, and so the DiT, as they are.
`--discrete` trains on discretized history (+d) with a codebook of the same latents, for as many steps as the
run without it. The files go to RUN/model, or RUN/model_discrete.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import FramePackError
from ..packing.codebook import Codebook, explained_variance, learn
from ..training.clips import Clips
from ..training.config import Stage
from ..training.console import Printed
from ..training.reports import Record, by_level, by_schedule
from ..training.trainer import DivergedError, Trainer, Unread
from . import builtin
from .budget import Budget
from .encode import load_vae, write_cache
from .export import latent_format, read_history, write_model
from .making import Making
from .recipe import STAGES, Recipe, enlarged, recipe
from .train_dit import Pair, read_exported, small_spec, taught, trainer_of
from .train_vae import VaeRun, better, measured, stages_for
from .train_vae import enlarged as enlarged_vae

log = logging.getLogger(__name__)
VAE_SHARE, ENCODING = 0.28, 0.15  # of a run that is cut to fit: the VAE; encoding of what is left then
CENTROIDS, PIXELS = 128, 400_000
TRIED, FIRST = 150, 50  # steps after which it is known how long a step takes; the first ones take longer
SKIPS, TRIAL_SKIPS = 200, 3  # steps without finite gradients, in all and in a trial; then it goes on in float32
EXPORT_EVERY = 30  # seconds
EXPORTING = 8  # seconds kept for the last files
LATER = 0.95  # time of later steps against those of the trial, in which nearly every section is new
# A GPU takes batches that many times as large as a CPU, in bfloat16, and is waited for only now and then.
VAE_TIMES, DIT_TIMES, READ_EVERY = 8, 12, 25

Precision = Literal["fp32", "bf16"]


def make_vae(how: Making) -> bool:
    """Train the VAE; True where it is complete."""
    path = how.folder / "vae.safetensors"
    if (how.folder / "vae.done").exists():
        return True
    stages = stages_for(how.start, how.decoder)
    if how.on_gpu:
        stages = tuple(enlarged_vae(stage, VAE_TIMES) for stage in stages)
    start = how.start and how.start / builtin.VAE.relative_to(builtin.ASSETS)
    run = VaeRun(path, how.folder / "vae-state.pt", stages, how.seed, how.device, start)
    complete = run.run(how.until(1.0 if how.decoder else VAE_SHARE, how.vae_seconds))
    if complete or how.budget.fit:
        keep_better(how, start)
        (how.folder / "vae.done").touch()
        copy_vae(how)
    return complete or how.budget.fit


def keep_better(how: Making, start: Path | None) -> None:
    """Put the VAE that the run starts from back where the trained one is not better, in both worlds."""
    path = how.folder / "vae.safetensors"
    trained = measured(load_vae(path, how.device))
    log.info("VAE, on clips that training does not see: %s", shown(trained))
    if start is None:
        return
    before = measured(load_vae(start, how.device))
    log.info("VAE, before: %s", shown(before))
    if not better(trained, before):
        log.warning("The VAE is no better than before; the one in %s stays.", how.start)
        shutil.copyfile(start, path)
        shutil.copyfile(start.with_suffix(".json"), path.with_suffix(".json"))


def shown(decibels: dict[str, float]) -> str:
    """Decibels by world, to read."""
    return ", ".join(f"{world} {value:.2f} dB" for world, value in decibels.items())


def copy_vae(how: Making) -> None:
    """Put the trained VAE among the model's files."""
    target = how.out / builtin.VAE.relative_to(builtin.ASSETS)
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile((how.folder / "vae.safetensors").with_suffix(suffix), target.with_suffix(suffix))


def copy_others(how: Making) -> bool:
    """Put DiT and text encoder of the model that the run starts from among the model's files."""
    assert how.start
    copy_vae(how)
    for asset in (builtin.DIT, builtin.TEXT):
        inside = asset.relative_to(builtin.ASSETS)
        (how.out / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(how.start / inside, how.out / inside)
    return True


def make_latents(how: Making) -> bool:
    """Encode the clips; True where all are there, or as many as fit."""
    folder = how.folder / "latents"
    if (folder / "done").exists():
        return True
    vae = load_vae(how.folder / "vae.safetensors", how.device)
    complete = write_cache(vae, folder, how.share, how.until(ENCODING, how.encoding_seconds).deadline)
    if complete or how.budget.fit:
        (folder / "done").touch()
    return complete or how.budget.fit


def make_codebook(how: Making) -> Path:
    """Learn centroids of the latents' pixels, from pixels of clips of all kinds."""
    path = how.folder / "codebook.safetensors"
    if not path.exists():
        clips = Clips(how.folder / "latents")
        pixels = torch.cat([clips.read(clip, 40).flatten(1).T for clip in clips.sample(200)])  # n c
        pixels = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(how.seed))[:PIXELS]]
        pixels = pixels.to(how.device)
        centroids = learn(pixels, CENTROIDS, first=pixels[:CENTROIDS].clone()).cpu()
        explained = explained_variance(pixels, centroids.to(pixels))
        log.info("codebook: %d centroids explain %.1f %% of the variance", CENTROIDS, 100 * explained)
        about = {"pixels": len(pixels), "explained_variance": explained}
        Codebook(centroids=centroids, latent_format="built-in", provenance=about).save(path)
    return path


class Exporter:
    """Writes the model's files from time to time as a run goes on, and what its losses are."""

    def __init__(self, how: Making, trainer: Trainer):
        self.how, self.trainer = how, trainer
        self.format = latent_format(how.folder / "latents")
        self.last, self.records, self.curve = time.monotonic(), [], []

    def step(self, record: Record, line: str) -> None:
        """A step is done; Trainer calls it."""
        self.records.append(record)
        if len(self.records) == 100:
            self.curve.append([record.step, round(sum(r.loss for r in self.records) / 100, 4)])
            self.records = []
        if line:
            log.info(line)
        if time.monotonic() - self.last > EXPORT_EVERY:
            self.write()

    def write(self) -> None:
        """Write the files."""
        trainer, out = self.trainer, self.how.out
        weights: dict[str, Tensor] = dict(trainer.model.state_dict())
        if trainer.average:
            weights |= trainer.average.mean
        if not all(value.isfinite().all() for value in weights.values()):
            log.error("Weights are not finite after step %d; the last files stay.", trainer.done)
            return
        about = {"run": trainer.states.about, "steps_done": trainer.done, "curve": self.curve}
        if self.how.start:
            about["before"] = read_history(self.how.start)
        write_model(weights, about, self.format, out)
        copy_vae(self.how)
        if self.how.discrete:
            shutil.copyfile(self.how.folder / "codebook.safetensors", out / "codebook.safetensors")
        recent = self.records[-100:]
        losses = {
            "steps": trainer.done,
            "skipped": trainer.skipped,
            "by level": by_level(recent),
            "by schedule": by_schedule(recent),
        }
        (out / "losses.json").write_text(json.dumps(losses, indent=1), "utf-8")
        self.last = time.monotonic()


def make_dit(how: Making) -> bool:
    """Train text encoder and DiT, and write the model's files; True where the run is complete."""
    codebook = make_codebook(how) if how.discrete else None
    budget = how.until(1.0)
    if budget.fit:
        budget = replace(budget, deadline=budget.deadline - EXPORTING)
    stages = STAGES[-1:] if how.start else STAGES
    if how.on_gpu:
        stages = tuple(enlarged(stage, DIT_TIMES) for stage in stages)
    trial, precision = None, "bf16" if how.on_gpu else "fp32"
    if (steps := settled(how)) is None and budget.fit:
        trial, precision = tried(how, stages, codebook, budget)
        steps = settled(how)
    if steps:
        stages = (*stages[:-1], replace(stages[-1], steps=steps))
    name = "dit_discrete" if how.discrete else "dit"
    trainer, run = _trainer(how, stages, codebook, name, precision, trial)
    exporter = Exporter(how, trainer)
    try:
        with Printed(sys.stdout) as printed:
            return trainer.run(
                lambda: printed.stopped() or budget.over, [exporter], lambda stage: taught(trainer, run, stage)
            )
    finally:
        exporter.write()


def settled(how: Making) -> int | None:
    """The last stage's steps that an earlier call settled; +d takes as many as the run without it, trial and all."""
    path = how.folder / "steps.json"
    if not path.exists():
        return None
    steps = json.loads(path.read_text("utf-8"))
    return steps["last"] + (steps["tried"] if how.discrete else 0)


def tried(how: Making, stages: tuple[Stage, ...], codebook: Path | None, budget: Budget) -> tuple[Trainer, Precision]:
    """A trial of the last stage, after which the steps are settled. Raises DivergedError where float32 fails, too."""
    kinds: tuple[Precision, ...] = ("bf16", "fp32") if how.on_gpu else ("fp32",)
    trial = None
    for precision in kinds:
        clips = trial.clips if trial else None
        trial = _trainer(how, stages, codebook, f"trial_{precision}", precision, clips=clips)[0]
        try:
            settle(how, trial, budget)
            return trial, precision
        except DivergedError as fault:
            if precision == kinds[-1]:
                raise
            log.warning("DiT: the trial in %s failed; it goes on in float32. %s", precision, fault)
    raise AssertionError("a trial returns or raises")


def settle(how: Making, trial: Trainer, budget: Budget) -> None:
    """Note how many steps of the last stage there is time for. The run goes on from the trial's weights."""
    tried, first = (TRIED, FIRST) if how.on_gpu else (8, 3)
    started, done = 0.0, []
    for number in range(tried):
        done.append(trial.advance())
        if number + 1 in (first // 5, first, tried):
            show(trial, done, number < first)  # waits for the device
            done = []
        if number + 1 == first:
            started = time.monotonic()
    each = (time.monotonic() - started) / (tried - first)
    steps = budget.steps(10**6, each * LATER)
    log.info("DiT: %.4f s a step; %d steps fit", each, steps)
    (how.folder / "steps.json").write_text(json.dumps({"last": steps, "tried": tried}), "utf-8")


def show(trial: Trainer, done: list[Unread], each: bool) -> None:
    """Say whether a trial's steps were finite, and their losses. Raises DivergedError where too many were not."""
    sound = [unread for unread in done if not trial.left_out(unread)]
    losses = [unread.losses.mean().item() for unread in sound]
    log.info("DiT: %d of %d steps to step %d are finite", len(sound), len(done), trial.done)
    if each:
        log.info("DiT: their losses: %s", " ".join(f"{loss:.3f}" for loss in losses))
    if trial.skipped > TRIAL_SKIPS:
        raise DivergedError(f"{trial.skipped} of {trial.done} steps were not finite.")


def _trainer(
    how: Making,
    stages: tuple[Stage, ...],
    codebook: Path | None,
    name: str,
    precision: Precision,
    like: Trainer | None = None,
    clips: Clips | None = None,
) -> tuple[Trainer, Recipe]:
    gpu = {"read_every": READ_EVERY, "save_every": 5000, "skips": SKIPS} if how.on_gpu else {}
    run = recipe(how.folder / "latents", how.folder / name, stages, codebook, precision, seed=how.seed, **gpu)
    trainer = trainer_of(run, small_spec(), how.device, like, clips)
    if how.start and not like:
        assert isinstance(trainer.model, Pair)
        read_exported(trainer.model, how.start)
    return trainer, run


def make(how: Making) -> bool:
    """Every stage in turn; True where all are complete. A VAE that fails leaves the one that the run starts from."""
    how.folder.mkdir(parents=True, exist_ok=True)
    if how.on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = True  # where it goes on in float32
    try:
        complete = make_vae(how)
    except (FramePackError, RuntimeError, OSError):
        if not how.start:
            raise
        log.exception("The VAE cannot be trained; the one in %s stays.", how.start)
        for suffix in (".safetensors", ".json"):
            source = (how.start / builtin.VAE.relative_to(builtin.ASSETS)).with_suffix(suffix)
            shutil.copyfile(source, (how.folder / "vae.safetensors").with_suffix(suffix))
        (how.folder / "vae.done").touch()
        complete = True
    if how.decoder:
        return complete and copy_others(how)
    return complete and make_latents(how) and make_dit(how)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--from", dest="start", type=Path, help="a model's files, to train them further")
    parser.add_argument("--decoder", action="store_true", help="with --from: the VAE's decoder alone")
    parser.add_argument("--minutes", type=float, default=150, help="of each stage, or with --fit of all together")
    parser.add_argument("--fit", action="store_true", help="cut the stages to what fits")
    parser.add_argument("--vae", type=float, metavar="SECONDS", help="of a run with --fit, for the VAE")
    parser.add_argument("--encode", type=float, metavar="SECONDS", help="of a run with --fit, for encoding")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--discrete", action="store_true", help="discretized history (+d)")
    parser.add_argument("--share", type=float, default=1.0, help="of the clips, such as 0.1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the model's files go, instead of into RUN")
    args = parser.parse_args()
    if args.decoder and not args.start:
        parser.error("--decoder trains the decoder of a model that is there. Name its files with --from.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    how = Making(
        folder=args.run,
        start=args.start,
        device=args.device,
        budget=Budget.lasting(60 * args.minutes, args.fit),
        stage_seconds=60 * args.minutes,
        discrete=args.discrete,
        decoder=args.decoder,
        share=args.share,
        seed=args.seed,
        target=args.out,
        vae_seconds=args.vae,
        encoding_seconds=args.encode,
    )
    complete = make(how)
    log.info("complete" if complete else "stopped; the same command goes on")


if __name__ == "__main__":
    main()
