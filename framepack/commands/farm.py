"""``python -m framepack farm``: a plan, or many jobs, on many workers."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FramePackError

CANCELLED = 130  # a command's status after Ctrl-C
MAX_GB = 1e9


def add_farm(commands: Any) -> None:
    """Add the commands to a parser's commands."""
    farm = commands.add_parser("farm", help="sample a plan, or do many jobs, on many workers")
    kinds = farm.add_subparsers(required=True, metavar="KIND")
    plan = kinds.add_parser("plan", help="sample a job file's sections on a Ray cluster")
    plan.add_argument("bundle", type=Path, metavar="BUNDLE", help="from the FramePack Save Job node")
    plan.add_argument("--out", type=Path, metavar="FILE", help="the latents, a new file (BUNDLE's name with .latent)")
    plan.add_argument("--store", type=Path, metavar="FOLDER", help="finished sections (BUNDLE's name with .sections)")
    plan.add_argument("--store-limit", type=float, metavar="GB", help="the least recently used go first (no limit)")
    plan.add_argument("--shared", action="store_true", help="all machines see the store: workers read and write it")
    plan.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster, or auto; without it one starts here")
    plan.add_argument("--workers", type=int, default=2, metavar="N", help="at most so many at once (2)")
    plan.add_argument("--ranks", type=int, default=1, metavar="N", help="processes that share each section (1)")
    plan.add_argument("--threads", type=int, default=1, metavar="N", help="of each process on a CPU (1)")
    plan.add_argument("--device", default="cpu", help="of each process: cpu, cuda")
    plan.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"))
    plan.add_argument("--attention", default="sdpa", choices=("sdpa", "sage", "flash"))
    plan.add_argument("--model", metavar="PATH", help="the model's file on the workers, where it is not the job's")
    plan.add_argument("--resource", metavar="NAME", help="a resource that workers' machines must offer")
    plan.add_argument("--json", action="store_true", help="report events as lines of JSON on standard output")
    plan.add_argument("--previews", type=Path, metavar="FOLDER", help="write guessed latents of sections there")
    plan.add_argument("--video", type=Path, metavar="MP4", help="decode into a new file meanwhile; needs --vae")
    plan.add_argument("--vae", type=Path, metavar="FILE", help="of --video, of Wan's kind")
    plan.add_argument("--fps", type=float, default=30.0, help="of --video (30)")
    plan.add_argument("--decode-device", default="cpu", metavar="DEVICE", help="of --video: cpu, cuda")
    plan.set_defaults(run=_plan)
    jobs = kinds.add_parser("jobs", help="do many jobs on ComfyUI hosts, or job files on engine actors")
    jobs.add_argument("jobs", type=Path, metavar="JOBS", help='JSON lines: {"workflow": FILE, "inputs": {"3.seed": 7}}')
    jobs.add_argument(
        "--host", action="append", default=[], metavar="URL", help="a ComfyUI; may be given several times"
    )
    jobs.add_argument("--workers", type=int, default=0, metavar="N", help="instead of hosts: engine actors on Ray")
    jobs.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; without it one starts here")
    jobs.add_argument("--store", type=Path, metavar="FOLDER", help="finished sections (JOBS's name with .sections)")
    jobs.add_argument("--journal", type=Path, metavar="FILE", help="what is finished (JOBS's name with .journal)")
    jobs.add_argument("--summary", type=Path, metavar="FILE", help="the summary as JSON (JOBS's name with .summary)")
    jobs.add_argument("--retries", type=int, default=3, metavar="N", help="of a job that fails (3)")
    jobs.add_argument("--patience", type=float, default=60.0, metavar="S", help="seconds that a host may be gone (60)")
    jobs.add_argument("--threads", type=int, default=1, metavar="N", help="of each engine actor on a CPU (1)")
    jobs.add_argument("--device", default="cpu", help="of engine actors: cpu, cuda")
    jobs.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"))
    jobs.set_defaults(run=_jobs)


def _plan(arguments: argparse.Namespace) -> str:
    from ..farm.cluster import Cluster
    from ..farm.driver import Driver, Run
    from ..farm.worker import ENDLESS
    from ..job_file import JobFile
    from ..job_run import Place

    _check_counts(arguments)
    bundle = arguments.bundle
    out = arguments.out or bundle.with_suffix(".latent")
    _check_new(out, "--out")
    if arguments.video:
        _check_new(arguments.video, "--video")
    attention = arguments.attention
    if arguments.ranks > 1:
        attention = "ulysses" if attention == "sdpa" else f"ulysses+{attention}"
    place = Place(device=arguments.device, dtype=arguments.dtype, attention=attention, threads=arguments.threads)
    how = {"address": arguments.address, "workers": arguments.workers, "ranks": arguments.ranks}
    decode_on = arguments.decode_device if arguments.video else None
    run = Run(
        bundle=bundle,
        cluster=Cluster(place=place, resource=arguments.resource, decode_on=decode_on, **how),
        store=(arguments.store or bundle.with_suffix(".sections")).absolute(),  # workers may start elsewhere
        limit=round(1e9 * arguments.store_limit) if arguments.store_limit else ENDLESS,
        model=arguments.model,
        shared=arguments.shared,
        previews=arguments.previews is not None,
        video=_video(arguments),
    )
    report = Events(arguments.json, arguments.previews)
    with cancelled() as stop:
        latents = Driver(run=run, report=report, stop=stop).latents()
    if latents is None:
        raise KeyboardInterrupt
    raw = JobFile.load(bundle).save_latents(latents, out)
    return "" if arguments.json else f"{out}: latents {list(raw.shape)}"


def _jobs(arguments: argparse.Namespace) -> str:
    from ..farm.jobs import JobRunner, Journal, in_order, read_tasks

    if bool(arguments.host) == bool(arguments.workers):
        raise FramePackError("Give either --host URL, once for each ComfyUI, or --workers N for engine actors.")
    tasks = read_tasks(arguments.jobs)
    journal = Journal(arguments.journal or arguments.jobs.with_suffix(".journal"))
    summary_path = arguments.summary or arguments.jobs.with_suffix(".summary")
    how = {"tasks": tasks, "journal": journal, "retries": arguments.retries}
    with cancelled() as stop, _targets(arguments, tasks, stop) as targets:
        summary = JobRunner(targets=targets, stop=stop, report=_job_line, **how).run()
    told = summary.to_dict()
    rows = [{key: record[key] for key in record if key != "id"} for record in in_order(tasks, journal)]
    summary_path.write_text(json.dumps({**told, "results": rows}, indent=1) + "\n", encoding="utf-8")
    if summary.stopped:
        sys.stderr.write(
            f"Stopped. {summary.before + summary.done} of {summary.jobs} jobs are done; the same command goes on.\n"
        )
        raise KeyboardInterrupt
    if summary.failed:
        raise FramePackError(f"{len(summary.failed)} of {summary.jobs} jobs failed; {summary_path} says why.")
    return (
        f"{summary.jobs} jobs, {summary.before} of them before, {summary.retries} retries, {summary.seconds:.1f} s, "
        f"{summary.reused} sections reused; {summary_path}"
    )


@contextmanager
def _targets(arguments: argparse.Namespace, tasks: Sequence[Any], stop: Callable[[], bool]) -> Iterator[list[Any]]:
    """What does the jobs, checked, as the jobs are. Raises FramePackError before any job begins."""
    from ..farm.targets import Engine, Host, models_of, workflow_of

    if arguments.host:
        hosts = [Host(url, arguments.patience) for url in dict.fromkeys(arguments.host)]
        for task in tasks:
            workflow_of(task)
        for host in hosts:
            host.check()
        yield hosts
        return
    from ..farm.cluster import Cluster
    from ..farm.machines import checked
    from ..job_run import Place

    models = models_of(tasks)
    place = Place(device=arguments.device, dtype=arguments.dtype, threads=arguments.threads)
    cluster = Cluster(address=arguments.address, workers=arguments.workers, place=place)
    store = (arguments.store or arguments.jobs.with_suffix(".sections")).absolute()

    def waits() -> None:
        if stop():
            raise KeyboardInterrupt

    with cluster.connected() as ray:
        for model in models:
            checked(cluster, ray, model, waits)
        yield [Engine(ray, lambda: cluster.doer(ray, store), f"worker {i}") for i in range(arguments.workers)]


def _job_line(event: dict[str, Any]) -> None:
    """A line on standard error for each job, and for a target that is not there."""
    what = f"job {event.get('line')} {event['event']} on {event['target']}"
    said = {
        "waiting": lambda: f"{event['target']} waits for a machine",
        "away": lambda: f"{event['target']} is away; others do its jobs: {event['why']}",
        "done": lambda: f"{what}, {event['seconds']:.1f} s",
    }
    sys.stderr.write(said.get(event["event"], lambda: f"{what}: {event['why']}")() + "\n")


def _video(arguments: argparse.Namespace) -> Any:
    from ..farm.decoding import Video

    if arguments.video is None:
        return None
    how = {"fps": arguments.fps, "device": arguments.decode_device}
    video = Video(out=arguments.video, vae=arguments.vae.absolute(), **how)
    video.check()
    return video


def _check_new(path: Path, option: str) -> None:
    """Raises FramePackError where a result could not be written there."""
    if path.exists():
        raise FramePackError(f"The output must be a new file; {path} exists. Choose another name: {option} FILE.")
    if not path.parent.is_dir():
        raise FramePackError(f"The folder {path.parent} does not exist. Make it, or choose another: {option} FILE.")


def _check_counts(arguments: argparse.Namespace) -> None:
    for name in ("workers", "ranks", "threads"):
        if not 1 <= getattr(arguments, name) <= 4096:
            raise FramePackError(f"--{name} is a number from 1 to 4096; got {getattr(arguments, name)}.")
    if (arguments.video is None) != (arguments.vae is None):
        raise FramePackError("--video MP4 and --vae FILE go together; give both, or neither.")
    if arguments.store_limit is not None and (arguments.shared or not 0 < arguments.store_limit < MAX_GB):
        raise FramePackError("--store-limit is a number of gigabytes above 0, for a store that is not --shared.")
    if arguments.shared and not arguments.store:
        raise FramePackError("--shared needs --store FOLDER, a folder that all machines see under the same name.")


@contextmanager
def cancelled() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C or SIGTERM only makes the function true, so that a run ends in good order."""
    asked: list[int] = []
    old = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Events:
    """Hears events; says them as lines of JSON on standard output, or as sentences on standard error."""

    def __init__(self, as_json: bool, previews: Path | None = None):
        self.as_json, self.previews = as_json, previews
        self.sections = 0
        self.begun = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        preview = event.pop("preview", None)
        if preview is not None and self.previews is not None:
            event["preview"] = self._keep(event["section"], preview)
        if self.as_json:
            sys.stdout.write(json.dumps({**event, "time": round(time.monotonic() - self.begun, 3)}) + "\n")
            sys.stdout.flush()
        elif text := self._sentence(event):
            sys.stderr.write(text + "\n")

    def _keep(self, section: int, preview: Any) -> str:
        """Write guessed latents beside their place and rename them, so that a reader never finds half a file."""
        from safetensors.torch import save_file

        assert self.previews is not None, "asked for"
        self.previews.mkdir(parents=True, exist_ok=True)
        path = self.previews / f"section_{section}.safetensors"
        part = path.with_suffix(".part")
        save_file({"latents": preview.contiguous()}, part)
        os.replace(part, path)
        return str(path)

    def _sentence(self, event: dict[str, Any]) -> str | None:
        kind, number = event["event"], event.get("section", -1)
        number = 0 if number is None else number + 1
        if kind == "begin":
            self.sections = event["sections"]
            return f"{self.sections} sections, at most {event['widest']} at the same time, on {event['device']}"
        said = {
            "waiting": lambda: f"{event['what']} {event['why']}",
            "stored": lambda: f"section {number} of {self.sections} is stored",
            "section": lambda: (
                f"section {number} of {self.sections}, {event['seconds']:.1f} s, worker {event['worker']}"
            ),
            "death": lambda: f"worker {event['worker']} died and is replaced ({event['why'].splitlines()[0][:120]})",
            "cancelled": lambda: f"Cancelled. {event['finished']} sections are kept; the same command goes on.",
            "video": lambda: f"{event['file']}: {event['frames']} frames decoded",
            "end": lambda: f"{event['computed']} sections sampled, {event['stored']} from the store",
        }
        return said[kind]() if kind in said else None
