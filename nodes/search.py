"""How the page's node search finds the pack's nodes: by words that artists type, and without the nodes of a run.

The search of the oldest hosts looks at ids and names alone, so every name begins with FramePack.
"""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .page import shown

ALIASES: dict[str, tuple[str, ...]] = {
    "FramePackLoadModel": ("hunyuan", "hunyuanvideo", "wan", "helios", "f1", "checkpoint", "long video"),
    "LoadFramePackTextEncoder": ("clip", "built-in model"),
    "PackHistory": ("schedule", "packing", "context", "history", "long video"),
    "EndpointPlanner": ("long video", "plan", "prompt timeline", "length", "start image", "end image", "extend"),
    "SectionSampler": ("long video", "section", "sampler", "ksampler", "image to video", "i2v", "hunyuan", "wan"),
    "FramePackVAEDecode": ("decode", "long video"),
    "FramePackVideo": ("long video", "save video", "stream"),
    "FramePackEndpoint": ("endpoint", "section prompt", "timed prompt", "prompt timeline"),
    "FramePackKeyframe": ("key frame", "keyframe", "guide image"),
    "FramePackResolution": ("resize", "bucket", "size"),
    "FramePackStill": ("helios", "start image", "still"),
    "FramePackVideoEncode": ("extend", "continue video", "encode video"),
    "FramePackLoraLoader": ("lora", "hunyuan", "wan"),
    "FramePackTrainLora": ("train", "finetune", "lora", "dataset"),
    "FramePackSigmas": ("sigmas", "scheduler", "shift"),
    "FramePackSolver": ("unipc", "euler", "sampler", "helios"),
    "FramePackPyramid": ("helios", "pyramid", "distilled", "sampler", "few steps"),
    "FramePackStepCache": ("teacache", "cache", "speed"),
    "FramePackSaveJob": ("job", "save plan", "command line"),
    "FramePackRepair": ("drift", "colour shift", "color match", "history"),
    "FramePackDiscretize": ("drift", "codebook", "quantize", "history"),
    "FramePackLearnCodebook": ("codebook", "k-means", "vocabulary"),
    "FramePackMethod": ("drift", "preset", "causal", "anchor", "noisy history"),
    "FramePackStore": ("disk space", "cache", "clear", "finished sections"),
    "FramePackDrift": ("quality", "metric", "drift"),
    "FramePackParallel": ("multi gpu", "several gpus", "ulysses", "parallel"),
    "FramePackFarm": ("ray", "cluster", "multi gpu", "farm", "distributed"),
}


def findable(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node with its words for the search; a node that only a run places is left out of the search."""

    def define_schema(cls: type) -> io.Schema:
        schema = shown(node.define_schema())
        words = ALIASES.get(schema.node_id)
        return host.hidden(schema) if words is None else host.searched(schema, words)

    methods = {"define_schema": classmethod(define_schema), "__doc__": node.__doc__, "__module__": node.__module__}
    return type(node.__name__, (node,), methods)
