"""What is done to history so that a long video does not drift: repair, discrete history, other methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..framepack.errors import CodebookError
from ..framepack.methods import METHODS, method_named
from ..framepack.packing.codebook import Codebook, explained_variance, learn, some_pixels
from ..framepack.packing.treatment import UNTREATED, Treatment
from . import host
from .types import CATEGORY, CodebookType, HistoryType, ScheduleType

NONE = "(none)"
PREVIOUS = HistoryType.Input(
    "previous", optional=True, tooltip="Another FramePack node that changes the history; both act."
)


class FramePackRepair(io.ComfyNode):
    """Keeps a long video's colours and contrast near its start."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackRepair",
            display_name="FramePack Repair",
            category=CATEGORY,
            description="Corrects the history that each section sees, so that changes of colour and contrast do not "
            "add up. The start frame is not changed.",
            inputs=[
                io.Float.Input(
                    "match",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Move the history's mean and variance (of each latent channel) to those of the start "
                    "frame. 0 = off, 1 = fully.",
                ),
                io.Float.Input(
                    "noise",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise level of the history, from 0 to 1. 0.1 is a common value. 0 = off.",
                ),
                io.Float.Input(
                    "noise_above",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Add the noise only where the history's mean and variance differ from the start's by more "
                    "than this. Helios uses 0.15. 0 = always.",
                ),
                PREVIOUS,
            ],
            outputs=[HistoryType.Output(display_name="history", tooltip="For SectionSampler.")],
        )

    @classmethod
    def execute(
        cls, match: float, noise: float, noise_above: float, previous: Treatment | None = None
    ) -> io.NodeOutput:
        """Add it to what is done already."""
        return io.NodeOutput(replace(previous or UNTREATED, match=match, noise=noise, noise_above=noise_above))


class FramePackLearnCodebook(io.ComfyNode):
    """Learns a codebook from latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackLearnCodebook",
            display_name="FramePack Learn Codebook",
            category=CATEGORY,
            description="Learns a codebook for discrete history by K-means over the latent pixels of a video, and can "
            "save it. For a folder of videos use: python -m framepack codebook.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latents of one or more videos, from VAEEncode."),
                io.Model.Input(
                    "model", tooltip="The model that the codebook is for: its latents are named in the file."
                ),
                io.Int.Input(
                    "size", default=128, min=2, max=4096, tooltip="Number of centroids. The paper recommends 128."
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Of the first centroids."),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="Save it in models/framepack_codebooks under this name, which must be new. Empty: do not "
                    "save.",
                ),
            ],
            outputs=[CodebookType.Output(display_name="codebook", tooltip="For FramePack Discretize.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], model: Any, size: int, seed: int, filename: str = "") -> io.NodeOutput:
        """Learn it, save it, and show how much it explains."""
        path = host.new_codebook(filename.strip()) if filename.strip() else None
        pixels = some_pixels([samples["samples"]], seed=seed)
        centroids = learn(pixels, size, seed=seed)
        variance = explained_variance(pixels, centroids)
        made = {"pixels": len(pixels), "seed": seed, "explained_variance": round(variance, 4)}
        book = Codebook(centroids=centroids, latent_format=host.format_name(model), provenance=made)
        if path:
            book.save(path)
        where = f", saved as {path.name}" if path else ""
        text = f"{size} centroids of {len(pixels)} pixels explain {variance:.1%} of the variance{where}"
        return io.NodeOutput(book, ui={"text": (text,)})


class FramePackDiscretize(io.ComfyNode):
    """Makes history discrete."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackDiscretize",
            display_name="FramePack Discretize",
            category=CATEGORY,
            description="Moves each pixel of the history to the nearest centroid of a codebook, so that small errors "
            "do not add up. The start frame is not changed.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that samples. The node says if it was not trained for this."
                ),
                io.Combo.Input(
                    "codebook_name",
                    options=[NONE, *host.list_codebooks()],
                    default=NONE,
                    tooltip="A file in models/framepack_codebooks, or (none) to use the codebook input.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far pixels move: 1 = to the centroid, 0 = not at all. Use less than 1 with models "
                    "that were not trained for it.",
                ),
                CodebookType.Input("codebook", optional=True, tooltip="From FramePack Learn Codebook."),
                PREVIOUS,
            ],
            outputs=[HistoryType.Output(display_name="history", tooltip="For SectionSampler.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        codebook_name: str,
        strength: float,
        codebook: Codebook | None = None,
        previous: Treatment | None = None,
    ) -> io.NodeOutput:
        """Check the codebook against the model, and add it."""
        if codebook is None and codebook_name == NONE:
            raise CodebookError("FramePack Discretize has no codebook. Choose a file, or connect one.")
        book = codebook or Codebook.load(host.codebook_path(codebook_name))
        host.check_codebook(model, book)
        text = (strength and host.untrained(model, book)) or f"{len(book.centroids)} centroids, strength {strength:g}"
        return io.NodeOutput(replace(previous or UNTREATED, codebook=book, strength=strength), ui={"text": (text,)})


class FramePackMethod(io.ComfyNode):
    """A method against drift as a preset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackMethod",
            display_name="FramePack Method",
            category=CATEGORY,
            description="The three orders of the paper and the five methods that it compares with, as presets.",
            inputs=[
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="inverted",
                    tooltip="; ".join(f"{method.name}: {method.note}" for method in METHODS.values()) + ".",
                ),
                io.Float.Input(
                    "noise",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise level of the history; for noisy only.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Scale of history guidance; for guided only. Connect history_guidance to SectionSampler.",
                ),
                PREVIOUS,
            ],
            outputs=[
                ScheduleType.Output(display_name="schedule", tooltip="For EndpointPlanner."),
                HistoryType.Output(display_name="history", tooltip="For SectionSampler."),
                io.Float.Output(display_name="history_guidance", tooltip="For SectionSampler."),
            ],
        )

    @classmethod
    def execute(cls, method: str, noise: float, guidance: float, previous: Treatment | None = None) -> io.NodeOutput:
        """The preset's schedule, treatment and guidance."""
        chosen, before = method_named(method), previous or UNTREATED
        treatment = replace(before, causal=chosen.causal, noise=noise if chosen.noise else before.noise)
        return io.NodeOutput(chosen.schedule, treatment, guidance if chosen.history_guidance else 0.0)
