"""Parts that run a real ComfyUI: the small workflow, the released sizes in little memory, and decoding."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from framepack.checkpoints.model_file import shapes_of
from framepack.checkpoints.writing import write
from framepack.models.hunyuan import HunyuanSpec
from tools.client import Progress, run
from tools.demo import WORKFLOW
from tools.host import CACHE, Host, link_folder, running
from tools.job import read_workflow
from tools.workflows import Graph

from .library import device

PROBE = Path(__file__).parent / "probe"
SCHEDULE = "f1k1_x_g9_f1k1f2k2f16k4_td"
TOY = {"heads": 2, "head_dim": 16, "double_blocks": 1, "single_blocks": 1, "refiner_blocks": 1, "rope_axes": (4, 6, 6)}
TOY |= {"text_dim": 64, "pooled_dim": 32}
STEPS = 4
NO_PAGE = CACHE / "no-page"
NOTED = "DynamicVRAM|loaded (partially|completely)"
COLOUR = re.compile(r"\x1b\[\d*m")
# A name, the host's arguments, and whether the layers that are tabulated are hidden from the host.
WAYS = (
    ("on", (), True),
    ("on, tabulated layers visible to ComfyUI", (), False),
    ("off", ("--disable-dynamic-vram",), True),
)


@contextmanager
def hosted(limit: float = 0.0, arguments: tuple[str, ...] = ()) -> Iterator[tuple[Host, Path]]:
    """A host without its page, in at most so many GB of the device's memory; and the file that CheckMemory writes."""
    with tempfile.TemporaryDirectory() as name:
        base, found = Path(name) / "host", Path(name) / "found.json"
        (base / "custom_nodes").mkdir(parents=True)
        link_folder(base / "custom_nodes" / "gpu_check_probe", PROBE)
        NO_PAGE.mkdir(parents=True, exist_ok=True)
        (NO_PAGE / "index.html").touch()
        own = {"FRAMEPACK_CHECK": str(found), "FRAMEPACK_CHECK_GB": str(limit), "FRAMEPACK_STORE": "off"}
        with running(base, None, ["--front-end-root", str(NO_PAGE), *_reserve(limit), *arguments], own) as host:
            yield host, found


def _reserve(limit: float) -> list[str]:
    """So that the host plans with no more than the limit."""
    if not limit or not torch.cuda.is_available():
        return []
    return ["--reserve-vram", f"{torch.cuda.get_device_properties(0).total_memory / 1e9 - limit:.1f}"]


def workflow(small: bool) -> list[str]:
    """The shipped small workflow, twice: the second run is without loading."""
    rows = ["| run | seconds | host's memory, GB |", "|---|---|---|"]
    with hosted() as (host, _):
        for seed in (1, 2):
            prompt = read_workflow(WORKFLOW)
            for node in prompt.values():
                if node["class_type"] == "SectionSampler":
                    node["inputs"] |= {"seed": seed} | ({"steps": 2} if small else {})
                if node["class_type"] == "EndpointPlanner" and small:
                    node["inputs"]["seconds"] = 1.2
            began = time.perf_counter()
            done = run(host.url, prompt)
            assert done.files, "it saved nothing"
            rows.append(f"| {seed} | {time.perf_counter() - began:.1f} | {host.peak_memory / 1e9:.2f} |")
    return rows


def released(limit: float, small: bool) -> list[str]:
    """The released spec with random weights at 480 x 832 in so many GB, with dynamic VRAM and without."""
    file = random_model(small)
    rows = [f"{limit:g} GB", "", "| dynamic VRAM | s/step | peak, GB | model, GB | on the device, GB |"]
    rows.append("|---|---|---|---|---|")
    noted: list[str] = []
    for name, arguments, aside in WAYS[1:2] if small else WAYS:
        with hosted(limit, arguments if torch.cuda.is_available() else ()) as (host, found):
            link_folder(host.base / "models" / "diffusion_models", file.parent)
            if not aside:
                run(host.url, {"1": {"class_type": "CheckWithoutAside", "inputs": {}}})
            times = stepped(host, section(file.name, small))
            held = json.loads(found.read_text("utf-8"))
            noted += [
                f"{name}: {line}" for line in COLOUR.sub("", host.log_text()).splitlines() if re.search(NOTED, line)
            ]
        figures = [held.get(key, 0) / 1e9 for key in ("peak", "model", "loaded")]
        rows.append(f"| {name} | {statistics.median(times):.2f} | " + " | ".join(f"{x:.1f}" for x in figures) + " |")
    return [*rows, "", *(["What ComfyUI logged:", "", "```", *noted, "```"] if noted else [])]


def random_model(small: bool) -> Path:
    """A file of the released spec with random weights, made once on this machine."""
    spec = HunyuanSpec(**TOY) if small else HunyuanSpec()
    file = CACHE / "random" / ("toy.safetensors" if small else "released.safetensors")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shapes = shapes_of(spec)
        where = device()
        metadata = {"framepack.spec": json.dumps({"rope_axes": spec.rope_axes, "rope_theta": spec.rope_theta})}
        tensors = ((k, (0.02 * torch.randn(shape, device=where)).bfloat16().cpu()) for k, shape in shapes.items())
        write(file, {k: (torch.bfloat16, shape) for k, shape in shapes.items()}, tensors, metadata)
    return file


def section(file: str, small: bool) -> dict[str, Any]:
    """A workflow of one section, from random text, in a few steps."""
    sizes = {"width": 96, "height": 64} if small else {"width": 832, "height": 480}
    graph = Graph("check", "")
    model = graph.add("FramePackLoadModel", model_name=file)
    schedule = graph.add("PackHistory", schedule=SCHEDULE, **sizes)
    options = {"seconds": 1.2, "fps": 30.0, "start_image": False, "without_start": "zero latent"}
    plan = graph.add("EndpointPlanner", schedule=schedule, **options, **sizes)
    text = graph.add("CheckText", **({"width": 64, "pooled": 32} if small else {"width": 4096, "pooled": 768}))
    given = {"seed": 1, "steps": STEPS, "cfg": 1.0, "guidance": 10.0}
    latents = graph.add("SectionSampler", model=model, plan=plan, positive=text, **given)
    graph.add("CheckMemory", after=latents, model=model)
    return graph.api()


def stepped(host: Host, prompt: dict[str, Any]) -> list[float]:
    """Seconds between a run's steps, the first left out."""
    moments: list[float] = []

    def at(progress: Progress) -> None:
        if "section" in progress.node:
            moments.append(time.perf_counter())

    run(host.url, prompt, at)
    times = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    return times[1:] or times


def decode(small: bool) -> list[str]:
    """37 frames of 480 x 832 through HunyuanVideo's VAE at its released width, by both nodes in turn.

    The first round loads the VAE and is left out. Every round has a latent batch of its own: the host caches results.
    """
    rows = ["| node | seconds | peak, GB |", "|---|---|---|"]
    size = {"width": 64, "height": 64, "length": 9} if small else {"width": 832, "height": 480, "length": 37}
    seconds: dict[str, list[float]] = {"FramePackVAEDecode": [], "VAEDecode": []}
    peaks: dict[str, float] = {}
    with hosted() as (host, found):
        for number in range(2 if small else 4):
            for node, times in seconds.items():
                graph = Graph("check", "")
                latents = graph.add("CheckLatents", seed=number, **size)
                images = graph.add(node, samples=latents, vae=graph.add("CheckVAE", width=32 if small else 128))
                graph.add("CheckMemory", after=images)
                began = time.perf_counter()
                run(host.url, graph.api())
                times.append(time.perf_counter() - began)
                peaks[node] = json.loads(found.read_text("utf-8")).get("peak", 0) / 1e9
    for node, times in seconds.items():
        rows.append(f"| {node} | {statistics.median(times[1:]):.2f} | {peaks[node]:.1f} |")
    return rows
