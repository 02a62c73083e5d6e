"""All that differs between ComfyUI versions. Nothing else asks what a host has.

The oldest supported version is 0.3.75; docs/hosts.md names the newest that was run.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import comfy.model_patcher
import comfy.quant_ops
import comfy.utils
from comfy_api.latest import io

import nodes as stock


def hidden(schema: io.Schema) -> io.Schema:
    """A node's schema that the page's search leaves out: for developers only, or deprecated where that is unknown."""
    known = {field.name for field in fields(schema)}
    return replace(schema, **{"is_dev_only" if "is_dev_only" in known else "is_deprecated": True})


def node_ids() -> set[str]:
    """The ids of all nodes that the host and other packs have registered so far."""
    return set(stock.NODE_CLASS_MAPPINGS)


def patcher_class(dynamic: bool) -> Any:
    """The host's class of a MODEL: the one with dynamic VRAM where the host has that and it is wanted."""
    plain = comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", plain) if dynamic else plain


def quantized_formats() -> set[str]:
    """The formats of quantized layers that the host computes, as files state them."""
    if not hasattr(comfy.utils, "detect_layer_quantization"):  # its layers took the formats from metadata alone
        return set()
    return set(comfy.quant_ops.QUANT_ALGOS)
