"""Several processes or machines: a section shared by processes, and a plan sampled on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io
from safetensors.torch import load_file

from ..framepack.errors import FramePackError
from ..framepack.farm.cluster import check_address, check_ray
from ..framepack.farm.driver_process import run_plan
from ..framepack.job_file import JobFile
from ..framepack.nn.attention import NAMES
from ..framepack.planning.plan_slice import PlanSlice
from . import host
from .types import CATEGORY

DTYPES = ["bf16", "fp16", "fp32"]


class FramePackParallel(io.ComfyNode):
    """Shares each section out over processes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackParallel",
            display_name="FramePack Parallel",
            category=CATEGORY,
            description="Samples each section in several processes at once, each on a GPU of its own. Each holds the "
            "model and a share of the tokens. Starts the processes when sampling begins.",
            inputs=[
                io.Model.Input("model", tooltip="From FramePack Load Model, without LoRAs."),
                io.Int.Input(
                    "processes",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="How many share a section. They must divide the model's attention heads: 24 heads take "
                    "1, 2, 3, 4, 6, 8, 12 or 24.",
                ),
                io.Combo.Input(
                    "device",
                    options=["auto", "cuda", "cpu"],
                    default="auto",
                    tooltip="auto: GPUs if there are several, else the CPU, for trying it out.",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(NAMES),
                    default="sdpa",
                    tooltip="The kernel in each process. sdpa: PyTorch's. sage, flash: their packages.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, for FramePack Section Sampler.")],
        )

    @classmethod
    def execute(cls, model: Any, processes: int, device: str, attention: str) -> io.NodeOutput:
        """Attach the processes to a copy; they start with the first step."""
        path = host.model_path(model)
        return io.NodeOutput(host.with_crew(model, path, processes, device, attention))


class FramePackFarm(io.ComfyNode):
    """Samples a job file on a Ray cluster."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackFarm",
            display_name="FramePack Farm",
            category=CATEGORY,
            description="Samples a plan's sections on many workers of a Ray cluster: gaps between key frames at the "
            "same time. Finished sections are kept; queue again to go on after a stop.",
            inputs=[
                io.String.Input("path", tooltip="The job file, from FramePack Save Job.", force_input=True),
                io.String.Input(
                    "address", default="", tooltip="The cluster, such as 10.0.0.1:6379. Empty starts one here."
                ),
                io.Int.Input("workers", default=2, min=1, max=4096, tooltip="Most workers at the same time."),
                io.Int.Input("processes", default=1, min=1, max=64, tooltip="Processes that share each section."),
                io.Combo.Input("device", options=["cuda", "cpu"], default="cuda", tooltip="Of each worker."),
                io.Combo.Input("dtype", options=DTYPES, default="bf16", tooltip="Number format. fp32 for a CPU."),
                io.Int.Input("threads", default=1, min=1, max=256, tooltip="CPU threads of each worker."),
                io.String.Input(
                    "shared_folder",
                    default="",
                    tooltip="A folder that all machines see, for finished sections. Empty: they travel through Ray.",
                ),
                io.Model.Input("model", optional=True, tooltip="Draws previews while sections are sampled."),
            ],
            outputs=[io.Latent.Output(tooltip="The whole video, for FramePack VAE Decode.")],
        )

    @classmethod
    def check(cls, address: str = "", shared_folder: str = "") -> None:
        """Raises FramePackError for a missing Ray, an address that is none, and a folder that is not there."""
        check_ray()
        check_address(address)
        if shared_folder and not Path(shared_folder).is_dir():
            raise FramePackError(
                f"The folder {shared_folder} does not exist. Make it on a disk that all machines see, or leave "
                "shared_folder empty."
            )

    @classmethod
    def execute(cls, path: str, shared_folder: str, model: Any = None, **values: Any) -> io.NodeOutput:
        """Run the driver beside the host, and read what it made."""
        job, out, progress = JobFile.load(Path(path)), host.temporary_path(".latent"), host.FarmProgress(model)
        options = {"out": out, "workers": values["workers"], "ranks": values["processes"]}
        options |= {name: values[name] for name in ("address", "device", "dtype", "threads") if values[name] != ""}
        if shared_folder:
            options["store"] = shared_folder
        elif kept := host.farm_store():
            options |= dict(zip(("store", "store-limit"), kept, strict=True))
        if model is not None:
            options["previews"] = out.with_suffix(".previews")
        if values["device"] == "cuda" and not values["address"]:
            host.make_room()
        arguments = [path, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
        run_plan([*arguments, *(["--shared"] if shared_folder else [])], progress, host.poll)
        raw = load_file(out)["latent_tensor"]
        placed = PlanSlice.within(job.plan, range(job.plan.num_lat_frames))
        stated = {name: list(held) for name, held in ((host.CLIPS, placed.clips), (host.KEPT, placed.kept)) if held}
        return io.NodeOutput({"samples": raw} | stated, ui=progress.ui(job, raw))
