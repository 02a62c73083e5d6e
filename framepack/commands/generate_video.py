"""``python -m framepack generate``: a video without ComfyUI by the built-in model, or the latents of a job file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import FramePackError
from .history_options import add_choice, add_treatment, choice_fields, treatment_of

PIXELS = 64  # height and width of the built-in model's videos


def add_generate(commands: Any) -> None:
    """Add the command to a parser's commands."""
    generate = commands.add_parser("generate", help="generate a video with the built-in model, or run a job file")
    generate.add_argument("output", type=Path, metavar="OUT", help="a new file: .mp4, or .latent for a job")
    generate.add_argument("--job", type=Path, metavar="FILE", help="from the FramePack Save Job node, for any model")
    generate.add_argument("--prompt", default="", help="what happens, such as: a red star moves up")
    generate.add_argument("--image", type=Path, metavar="FILE", help="the start image")
    generate.add_argument("--schedule", default="inverted", metavar="STRING", help="a schedule or a preset (inverted)")
    generate.add_argument("--seconds", type=float, default=5.0, metavar="S")
    generate.add_argument("--fps", type=float, default=30.0)
    generate.add_argument("--exact", action="store_true", help="cut decoded frames beyond the length")
    generate.add_argument("--steps", type=int, default=25)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--cfg", type=float, default=3.0)
    generate.add_argument("--cfg-above", type=float, default=0.9, metavar="SIGMA")
    generate.add_argument("--history-guidance", type=float, default=1.0, metavar="SCALE")
    add_choice(generate)
    add_treatment(generate)
    generate.add_argument("--device", default="cpu", help="of a job's model: cpu, cuda, mps")
    generate.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"), help="of a job's model")
    generate.add_argument("--attention", default="sdpa", choices=("sdpa", "sage", "flash"), help="of a job's model")
    generate.add_argument("--threads", type=int, metavar="N", help="of a job's products on a CPU")
    generate.add_argument("--store", type=Path, metavar="FOLDER", help="keep a job's finished sections there")
    generate.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> str:
    if arguments.output.exists() and os.environ.get("RANK", "0") == "0":
        raise FramePackError(f"The output must be a new file; {arguments.output} exists. Choose another name.")
    return _job(arguments) if arguments.job else _video(arguments)


def _video(arguments: argparse.Namespace) -> str:
    """The built-in model's video as an mp4."""
    from ..planning.request import PlanRequest  # torch is needed for this command alone
    from ..planning.video import plan_video
    from ..sampling.guidance import Guidance
    from ..schedule.presets import resolve
    from ..shapes.generate import Builtin, generate
    from ..shapes.video_files import read_image, write_video

    schedule, model = resolve(arguments.schedule), Builtin.load()
    start = read_image(arguments.image, PIXELS) if arguments.image else None
    request = PlanRequest.lasting(
        arguments.seconds,
        arguments.fps,
        schedule=schedule,
        exact=arguments.exact,
        start=start is not None,
        height=PIXELS,
        width=PIXELS,
        **choice_fields(arguments),
    )
    plan = plan_video(request)
    led = Guidance(cfg=arguments.cfg, cfg_above=arguments.cfg_above, history=arguments.history_guidance)
    latents = generate(
        model,
        plan,
        [arguments.prompt],
        start=None if start is None else model.vae.encode(start[None]),
        steps=arguments.steps,
        seed=arguments.seed,
        guidance=led,
        treatment=treatment_of(arguments),
        progress=Lines(len(plan.sections)),
    )
    frames = model.pixels(latents[0])[plan.kept_frames.start : plan.kept_frames.stop]
    write_video(frames, arguments.output, arguments.fps)
    return f"{arguments.output}: {len(frames)} frames"


def _job(arguments: argparse.Namespace) -> str:
    """A job's latents, as ComfyUI's LoadLatent reads them. Under torchrun all processes share each section."""
    from .. import pipeline
    from ..job_file import JobFile
    from ..job_run import JobRun, Place
    from ..training.parallel import rank, start, world

    device, attention = arguments.device, arguments.attention
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        device, attention = str(start(device)), "ulysses" if attention == "sdpa" else f"ulysses+{attention}"
    job = JobFile.load(arguments.job)
    run = JobRun.of(job, Place(device=device, dtype=arguments.dtype, attention=attention, threads=arguments.threads))
    progress = Lines(len(job.plan.sections)) if rank() == 0 else None
    how: dict[str, Any] = {"like": job.like, "store": opened(arguments.store), "progress": progress}
    latents = pipeline.generate(job.plan, job.anchors(), run, run.settings, **how)
    if rank():
        return f"process {rank() + 1} of {world()}"
    return f"{arguments.output}: latents {list(job.save_latents(latents, arguments.output).shape)}"


def opened(folder: Path | None) -> Any:
    """The section store in a folder, if there is one; nothing is ever removed from it to make room."""
    from ..store.section_store import SectionStore

    return None if folder is None else SectionStore(folder, limit=2**62)


class Lines:
    """Progress as a line for each section on standard error."""

    def __init__(self, sections: int):
        self.sections = sections

    def begin(self, job: Any) -> None:
        """A section is about to be sampled."""
        sys.stderr.write(f"section {job.index + 1} of {self.sections}, {len(job.sigmas) - 1} steps\n")

    def loaded(self, job: Any) -> None:
        """A section is in the store."""
        sys.stderr.write(f"section {job.index + 1} of {self.sections} is stored\n")

    def locked(self, job: Any, seam: bool) -> None:
        """Nothing is locked."""

    def done(self, job: Any, key: str | None) -> None:
        """Nothing more to say."""
