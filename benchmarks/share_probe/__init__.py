"""A custom node of a host under measurement: where the time of each prompt goes, written as JSON.

A stack of names says whose code runs; a moment belongs to the name on top. Whatever is called within a function of
the pack's nodes is the pack's, but for the calls out named in OUT: the model's forward, the VAE's, and the host's
sampling, loading and progress bar. What the host calls back is the pack's again, but for the model's attention.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import execution

NODE_CLASS_MAPPINGS: dict[str, type] = {}
PACK = "framepack-nodes"
# Module, class (or none) and function. A leading dot: in the pack.
OUT = {
    "model": [
        (".framepack.models.hunyuan.dit", "HunyuanDiT", "forward"),
        (".framepack.models.wan.dit", "WanDiT", "forward"),
        (".framepack.shapes.text", "TextEncoder", "forward"),
    ],
    "VAE": [
        ("comfy.sd", "VAE", "decode"),
        ("comfy.sd", "VAE", "encode"),
        ("comfy.ldm.wan.vae", "Decoder3d", "forward"),
        ("comfy.ldm.wan.vae", "CausalConv3d", "forward"),  # the one before the decoder
    ],
    "host": [
        ("comfy.samplers", "CFGGuider", "sample"),
        ("comfy.samplers", "", "sampling_function"),
        ("comfy.model_base", "BaseModel", "apply_model"),
        ("comfy.model_management", "", "load_models_gpu"),
        ("comfy.utils", "ProgressBar", "update_absolute"),
    ],
}
OF_THE_MODEL = ("host_attention",)  # called by its blocks


class Clock:
    """Seconds by the name on top of a stack."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.stack: list[str] = []
        self.mark = 0.0

    def turn(self) -> None:
        """What has passed since the last turn belongs to the top."""
        now = time.perf_counter()
        if self.stack:
            self.seconds[self.stack[-1]] += now - self.mark
        self.mark = now

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, under a name."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self.stack.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self.stack.pop()

        return run


CLOCK = Clock()


def pack_modules() -> dict[str, ModuleType]:
    """The pack's loaded modules by their names within it."""
    found = {name: module for name, module in sys.modules.items() if f"{PACK}." in name or name.endswith(PACK)}
    return {name.partition(PACK)[2]: module for name, module in found.items()}


@functools.cache
def attach() -> None:
    """Put every function of the pack's nodes, and every call out, under its name."""
    modules = pack_modules()
    made: dict[FunctionType, Callable[..., Any]] = {}
    for module in [module for name, module in modules.items() if name.startswith(".nodes")]:
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and f"{PACK}.nodes" in value.__module__:
                part = "model" if name in OF_THE_MODEL else "pack"
                setattr(module, name, made.setdefault(value, CLOCK.timed(value, part)))
            elif isinstance(value, type) and value.__module__ == module.__name__:
                _attach_class(value)
    root = modules[""].__name__
    for part, places in OUT.items():
        for place, kind, name in places:
            owner: Any = importlib.import_module(root + place if place.startswith(".") else place)
            owner = getattr(owner, kind) if kind else owner
            setattr(owner, name, CLOCK.timed(getattr(owner, name), part))
    _attach_vae()


def _attach_vae() -> None:
    """A VAE's last step, from its output's range to a picture's, is its own, as within the host's decode."""
    vae: Any = importlib.import_module("comfy.sd").VAE
    init = vae.__init__

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.process_output = CLOCK.timed(self.process_output, "VAE")

    vae.__init__ = made


def _attach_class(kind: type) -> None:
    for name, value in list(vars(kind).items()):
        if name.startswith("__") and name != "__call__":
            continue
        if isinstance(value, FunctionType):
            setattr(kind, name, CLOCK.timed(value, "pack"))
        elif isinstance(value, classmethod):
            setattr(kind, name, classmethod(CLOCK.timed(value.__func__, "pack")))


def _measured(execute: Callable[..., Any]) -> Callable[..., Any]:
    """PromptExecutor.execute, which writes what it took."""

    @functools.wraps(execute)
    def run(*args: Any, **kwargs: Any) -> Any:
        attach()
        CLOCK.seconds.clear()
        try:
            return CLOCK.timed(execute, "host")(*args, **kwargs)
        finally:
            Path(os.environ["FRAMEPACK_SHARE"]).write_text(json.dumps(CLOCK.seconds), "utf-8")

    return run


execution.PromptExecutor.execute = _measured(execution.PromptExecutor.execute)
