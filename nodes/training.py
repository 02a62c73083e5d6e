"""A LoRA trained on a folder of videos, as a job of the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..framepack.models.backbones import backbone_with
from ..framepack.schedule.presets import resolve
from ..framepack.training.config import Config, Data, Lora, Model, Run, Samples, Share, Stage
from . import host
from .types import CATEGORY, ScheduleType

FIRST_FRAME_SHIFT = 1.0  # noise levels of single frames are not shifted
WARMUP = 0.05  # of the steps
PREFIXES = {"hunyuan": "transformer."}  # of names in the file, as ComfyUI's own loader wants them
PLAIN_CFG = 3.0  # of samples of a model without distilled guidance
MOST = 2**63 - 1


class FramePackTrainLora(io.ComfyNode):
    """Trains a LoRA of a folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackTrainLora",
            display_name="FramePack Train LoRA",
            category=CATEGORY,
            description="Trains a LoRA on a folder of videos with captions. Shows the loss and sample videos while it "
            "runs. A run that is cancelled goes on where it was when it is queued again.",
            inputs=[
                io.Model.Input("model", tooltip="The model to train for, straight from FramePack Load Model."),
                io.Vae.Input("vae", tooltip="The model's own VAE, from VAELoader."),
                io.Clip.Input("clip", tooltip="The model's own text encoder."),
                *_data_inputs(),
                *_training_inputs(),
                *_sample_inputs(),
                ScheduleType.Input(
                    "schedule",
                    optional=True,
                    tooltip="From PackHistory: the packing that is trained. Without it, the one that the model knows.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA at strength 1."),
                io.Custom("LORA_MODEL").Output(display_name="lora", tooltip="The LoRA, for SaveLoRA."),
                io.Custom("LOSS_MAP").Output(display_name="loss_map", tooltip="Each step's loss, for LossGraphNode."),
                io.Int.Output(display_name="steps", tooltip="Steps that the LoRA was trained for."),
                io.String.Output(display_name="path", tooltip="The file, in the output folder's loras."),
            ],
            is_output_node=True,
        )

    @classmethod
    def check(cls, folder: str | None = None, name: str = "lora") -> None:
        """The folder is there, and the name can be a file's. Raises FramePackError."""
        if folder is not None:
            host.training_folder(folder)
        host.check_name(name)

    @classmethod
    def fingerprint_inputs(cls, folder: Any = "", **_: Any) -> str:
        """Changes with the folder's files."""
        return host.folder_state(str(folder))

    @classmethod
    def execute(cls, model: Any, vae: Any, clip: Any, **values: Any) -> io.NodeOutput:
        """Train it, and load the file."""
        learned = host.learn(model, vae, clip, config_of(model, values))
        patched, report = host.apply_lora(model, str(learned.path), 1.0)
        lines = [f"{learned.path}, {len(learned.losses)} steps", report]
        lines += [f"left out: {name}: {reason}" for name, reason in learned.left_out.items()]
        ui = {"images": [host.on_page([learned.picture], "png")], "text": ("\n".join(lines),)}
        losses = {"loss": learned.losses}
        return io.NodeOutput(patched, learned.tensors, losses, len(learned.losses), str(learned.path), ui=ui)


def _data_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "folder",
            default="training",
            tooltip="Videos and images, beside each a .txt with its caption, one wording a line. A full path, or a "
            "folder in ComfyUI's input folder.",
        ),
        io.String.Input("name", default="framepack_lora", tooltip="The file's name, in the output folder's loras."),
        io.Int.Input(
            "size",
            default=640,
            min=64,
            max=2048,
            step=32,
            tooltip="Side in pixels of a square picture; others get as many pixels. Less is faster and needs less "
            "memory.",
        ),
        io.Float.Input("fps", default=30.0, min=1.0, max=240.0, step=1.0, tooltip="Frames per second of the clips."),
        io.Float.Input(
            "longest",
            default=10.0,
            min=0.5,
            max=600.0,
            step=0.5,
            tooltip="Longer videos are cut into clips of so many seconds.",
        ),
    ]


def _training_inputs() -> list[io.Input]:
    return [
        io.Int.Input("steps", default=1000, min=1, max=1_000_000, tooltip="Training steps."),
        io.Int.Input(
            "batch", default=1, min=1, max=1024, tooltip="Clips a step. They run one after another: time, not memory."
        ),
        io.Float.Input(
            "learning_rate",
            default=1e-4,
            min=1e-7,
            max=1.0,
            step=1e-7,
            round=False,
            tooltip="Highest step size; it rises over the first 5 % of the steps.",
        ),
        io.Int.Input("rank", default=16, min=1, max=512, tooltip="Size of the LoRA. More learns more and is larger."),
        io.Combo.Input(
            "optimizer",
            options=["adamw", "adafactor", "muon"],
            default="adamw",
            tooltip="adafactor needs least memory.",
        ),
        io.Combo.Input(
            "base_weights",
            options=["as loaded", "fp8"],
            default="as loaded",
            tooltip="fp8 holds the frozen model in half the memory, a little less exactly.",
        ),
        io.Float.Input(
            "first_frames",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Share of the steps that train a video's first frame from text alone. Only models that make videos "
            "from text need it, and only these steps can use images.",
        ),
        io.Int.Input(
            "seed", default=0, min=0, max=MOST, control_after_generate=False, tooltip="Order of clips, and noise."
        ),
    ]


def _sample_inputs() -> list[io.Input]:
    return [
        io.Int.Input("sample_every", default=0, min=0, max=1_000_000, tooltip="Steps between sample videos; 0 = none."),
        io.String.Input(
            "sample_prompts",
            default="",
            multiline=True,
            tooltip="One a line. Without any, the first clip's caption.",
        ),
        io.Int.Input(
            "sample_length",
            default=19,
            min=2,
            max=1000,
            tooltip="Latent frames of a sample, each 4 frames of video. 19 are two sections and the start.",
        ),
    ]


def config_of(model: Any, values: dict[str, Any]) -> Config:
    """The run's configuration. Raises FramePackError for a model with patches."""
    spec, path = model.model.diffusion_model.spec, host.model_path(model)
    backbone, (device, compute) = backbone_with(spec), host.training_device()
    schedule = values.get("schedule") or backbone.schedule or str(resolve(host.order_trained(model) or "inverted"))
    folder, steps, share = host.training_folder(values["folder"]), values["steps"], values["first_frames"]
    mixture = (Share(schedule=schedule, weight=1 - share), Share(weight=share, shift=FIRST_FRAME_SHIFT))
    prompts = tuple(filter(None, map(str.strip, values["sample_prompts"].splitlines())))
    return Config(
        model=Model(path=Path(path), compute=compute, device=device),
        data=Data(
            cache=host.cache_of(folder),
            folder=folder,
            base=values["size"],
            fps=values["fps"],
            longest=values["longest"],
        ),
        run=Run(
            out=host.run_place(values["name"]), seed=values["seed"], batch=values["batch"], at_once=1, report_every=1
        ),
        stage=(
            Stage(
                steps=steps,
                mixture=tuple(each for each in mixture if each.weight),
                optimizer=values["optimizer"],
                rate=values["learning_rate"],
                warmup=round(WARMUP * steps),
            ),
        ),
        lora=Lora(
            rank=values["rank"],
            alpha=values["rank"],
            base="fp8" if values["base_weights"] == "fp8" else "",
            prefix=PREFIXES.get(backbone.key, "diffusion_model."),
        ),
        samples=Samples(
            every=values["sample_every"],
            prompts=prompts,
            schedule=schedule,
            num_lat_frames=values["sample_length"],
            cfg=1.0 if getattr(spec, "guidance", False) else PLAIN_CFG,
            start=not share,
        ),
    )
