"""Checks every input of every node against the node's own schema: before a run, and again in it.

The host trusts what it gets: the oldest one checks no combo, none checks a value that comes by a link, and NaN passes
every comparison with a bound. `checked` wraps each node when the pack is registered, so that no node can be forgotten.

A node adds rules of its own in a class method ``check``. Its parameters are the inputs that it looks at, each with a
default that passes, which stands for an input that is linked or left out. It raises FramePackError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..framepack.errors import FramePackError, ScheduleError, quoted
from ..framepack.packing.codebook import Codebook
from ..framepack.packing.treatment import Treatment
from . import host

MAX_OPTIONS = 12  # options that a message lists
FOLDERS = {"model_name": "diffusion_models", "text_encoder_name": "text_encoders", "lora_name": "loras"}


class InputError(FramePackError):
    """An input of a node that its schema does not allow."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a value of one of the host's types is: a test, the words for it, and where it comes from."""

    fits: Callable[[Any], bool]
    words: str
    remedy: str


def _is_latent(value: Any) -> bool:
    samples = value.get("samples") if isinstance(value, Mapping) else None
    return isinstance(samples, Tensor) and samples.ndim in (4, 5) and samples.numel() > 0


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.numel() > 0 and value.shape[3] >= 3


def _is_conditioning(value: Any) -> bool:
    pairs = isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)
    return pairs and len(value) > 0 and all(isinstance(options, Mapping) for _, options in value)


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, bool | int | float | str | list | tuple | dict)


KINDS = {
    "MODEL": _Kind(host.is_framepack, "a FramePack model", "Connect FramePack Load Model."),
    "LATENT": _Kind(_is_latent, "a latent", "Connect VAEEncode or another node that gives a LATENT."),
    "IMAGE": _Kind(_is_image, "images", "Connect LoadImage or another node that gives an IMAGE."),
    "CONDITIONING": _Kind(_is_conditioning, "a conditioning", "Connect CLIPTextEncode."),
    "SIGMAS": _Kind(lambda value: isinstance(value, Tensor) and value.ndim == 1, "sigmas", "Connect FramePackSigmas."),
    "SAMPLER": _Kind(lambda value: hasattr(value, "sample"), "a sampler", "Connect FramePack Solver."),
    "VAE": _Kind(lambda value: hasattr(value, "decode"), "a VAE", "Connect VAELoader."),
    "CLIP": _Kind(lambda value: hasattr(value, "tokenize"), "a text encoder", "Connect DualCLIPLoader."),
    "CLIP_VISION_OUTPUT": _Kind(_is_object, "an encoded image", "Connect CLIPVisionEncode."),
    "FRAMEPACK_SCHEDULE": _Kind(lambda value: isinstance(value, str), "a schedule", "Connect PackHistory."),
    "FRAMEPACK_PLAN": _Kind(lambda value: isinstance(value, str), "plan JSON", "Connect EndpointPlanner."),
    "FRAMEPACK_ENDPOINTS": _Kind(lambda value: isinstance(value, str), "endpoints", "Connect FramePackEndpoint."),
    "FRAMEPACK_ANCHORS": _Kind(
        lambda value: isinstance(value, Mapping) and all(map(_is_latent, value.values())),
        "key frames",
        "Connect FramePackKeyframe.",
    ),
    "FRAMEPACK_HISTORY": _Kind(
        lambda value: isinstance(value, Treatment), "a treatment of history", "Connect FramePack Repair."
    ),
    "FRAMEPACK_CODEBOOK": _Kind(
        lambda value: isinstance(value, Codebook), "a codebook", "Connect FramePack Load Codebook."
    ),
    "FRAMEPACK_FRAMES": _Kind(lambda value: isinstance(value, host.Decoding), "decoded frames", "Remove the value."),
    "AUDIO": _Kind(host.sound.is_audio, "sound", "Connect GetVideoComponents or LoadAudio."),
    "STRING": _Kind(lambda value: isinstance(value, str), "text", "Write text."),
    "BOOLEAN": _Kind(lambda value: isinstance(value, bool), "true or false", "Choose one of them."),
}


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node with all its inputs checked, when a workflow is queued and again when the node runs."""
    extra = _own_inputs(node)
    run = node.execute

    def validate_inputs(cls: type, **values: Any) -> bool:
        # Raised, not returned: the host repeats what is returned for every parameter.
        with _on_page():
            check_inputs(node, {n: value for n, value in values.items() if value is not None})
        return True

    def execute(cls: type, **values: Any) -> io.NodeOutput:
        values = _given(node.define_schema().inputs, values, getattr(node, "TAKES", ()))
        with _on_page():
            check_inputs(node, values)
            return run.__func__(cls, **values)

    # The host checks whole numbers itself, and all that is no parameter.
    trusted = [given.id for given in node.define_schema().inputs if isinstance(given, io.Combo.Input | io.Float.Input)]
    validate_inputs.__signature__ = _signature(["cls", *dict.fromkeys([*trusted, *extra])])
    methods = {"execute": classmethod(execute), "validate_inputs": classmethod(validate_inputs)}
    return type(node.__name__, (node,), {"__doc__": node.__doc__, "__module__": node.__module__} | methods)


def check_inputs(node: type[io.ComfyNode], values: Mapping[str, Any]) -> None:
    """Check the values against the node's schema, and by its own rules. Raises FramePackError."""
    schema = node.define_schema()
    for given in (given for given in schema.inputs if given.id in values):
        for value in values[given.id] if schema.is_input_list else [values[given.id]]:
            _check(given, value)
    if own := _own_inputs(node):
        node.check(**{name: values[name] for name in own if name in values})


@contextmanager
def _on_page() -> Iterator[None]:
    """Within, a fault in a schedule is raised in the words for the page, whose font is proportional."""
    try:
        yield
    except ScheduleError as fault:
        raise InputError(fault.marked) from fault


def _own_inputs(node: type[io.ComfyNode]) -> list[str]:
    """The inputs that the node's own rules look at."""
    return list(inspect.signature(node.check).parameters) if hasattr(node, "check") else []


def _signature(names: Iterable[str]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind, default=None) for name in names])


def _given(inputs: Iterable[io.Input], values: Mapping[str, Any], takes: tuple[str, ...]) -> dict[str, Any]:
    """The values, without optional ones whose nodes gave None. Raises InputError for a name that is no input's.

    `takes` are the beginnings of the names under which a node takes any number of links.
    """
    known = {given.id: given for given in inputs}
    if strange := [name for name in values if name not in known and not name.startswith(takes)]:
        raise InputError(f"{quoted(strange[0])} is not an input of this node. Remove it.")
    absent = {name for name, given in known.items() if given.optional and values.get(name) is None}
    return {name: value for name, value in values.items() if name not in absent}


def _check(given: io.Input, value: Any) -> None:
    if given.extra_dict.get("rawLink"):
        if not (isinstance(value, list) and len(value) == 2):
            raise _error(given, value, "connected", f"Connect a {given.get_io_type()}.")
    elif isinstance(given, io.Combo.Input):
        if value not in given.options and given.id in FOLDERS:
            raise _missing(given, value)
        if value not in given.options:
            raise _error(given, value, _listed(given.options), _nearest(value, given))
    elif isinstance(given, io.Int.Input | io.Float.Input):
        whole = isinstance(given, io.Int.Input)
        if not isinstance(value, Integral if whole else Real) or not given.min <= value <= given.max:  # NaN fails too
            words = f"{'a whole number' if whole else 'a number'} from {given.min} to {given.max}"
            raise _error(given, value, words, _default(given))
    elif (kind := KINDS.get(given.get_io_type())) and not kind.fits(value):
        raise _error(given, value, kind.words, kind.remedy)


def _error(given: io.Input, value: Any, words: str, remedy: str) -> InputError:
    return InputError(f"{given.id} must be {words}; got {quoted(value)}. {remedy}".rstrip())


def _missing(given: io.Combo.Input, value: Any) -> InputError:
    """A file that the host does not list."""
    there = f"choose {_listed(given.options)}" if given.options else "choose another folder of models"
    return InputError(
        f"{given.id}: {quoted(value)} is not in models/{FOLDERS[given.id]}. Put the file there and press R, or {there}."
    )


def _listed(options: Iterable[Any]) -> str:
    names = list(map(str, options))
    more = f" or one of {len(names) - MAX_OPTIONS} others" if len(names) > MAX_OPTIONS else ""
    return ("one of: " + ", ".join(names[:MAX_OPTIONS]) + more) if names else "a file, and there is none"


def _nearest(value: Any, given: io.Combo.Input) -> str:
    near = get_close_matches(value, given.options, 1) if isinstance(value, str) else []
    return f"Try {near[0]}." if near else _default(given)


def _default(given: io.WidgetInput) -> str:
    return "" if given.default is None else f"Try {given.default}."
