"""All that differs between ComfyUI versions. No other module asks what a host has.

The oldest supported version is 0.3.75; docs/hosts.md names the newest that was run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import comfy.model_patcher
import comfy.quant_ops
import comfy.utils
import torch
from comfy_api.latest import io
from torch import nn

import nodes as stock

_offered: list[Any] = []  # what is registered with the host: one provider at most


class Results(Protocol):
    """Results of nodes by the host's key."""

    def get(self, key: str) -> Any | None:
        """The one under a key."""
        ...

    def put(self, key: str, result: Any) -> None:
        """Keep one; it has `outputs`."""
        ...


def searched(schema: io.Schema, words: Iterable[str]) -> io.Schema:
    """A node's schema with further words that the page's search finds it by, where the host knows such."""
    known = {field.name for field in fields(schema)}
    return replace(schema, search_aliases=list(words)) if "search_aliases" in known else schema


def hidden(schema: io.Schema) -> io.Schema:
    """A node's schema that the page's search leaves out: for developers only, or deprecated where that is unknown."""
    known = {field.name for field in fields(schema)}
    return replace(schema, **{"is_dev_only" if "is_dev_only" in known else "is_deprecated": True})


def node_ids() -> set[str]:
    """The ids of all nodes that the host and other packs have registered so far."""
    return set(stock.NODE_CLASS_MAPPINGS)


def patcher_class(dynamic: bool) -> type[comfy.model_patcher.ModelPatcher]:
    """The host's class for a MODEL: with dynamic VRAM where it is switched on and wanted, else the plain one."""
    plain = comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", plain) if dynamic else plain


def quantized_formats() -> set[str]:
    """The formats of quantized layers that the host computes, as files state them."""
    if not hasattr(comfy.utils, "detect_layer_quantization"):  # its layers took the formats from metadata alone
        return set()
    return set(comfy.quant_ops.QUANT_ALGOS)


def latents_at_once(decoder: nn.Module) -> int:
    """How many latent frames a Wan decoder must have in each call but the first and the last.

    The newer one (it has `run_up`) keeps no frame from before the last call, so it must see two.
    """
    return 2 if hasattr(decoder, "run_up") else 1


def offer_results(wanted: Callable[[str], bool], results: Results | None) -> None:
    """Have the host look up results of nodes in `results`, and put them there, where it can; with None, no longer.

    `wanted` tells by a node's id. The host computes the key of every node for this, so it begins when one is wanted.
    """
    if find_spec("comfy_execution.cache_provider") is None:
        return
    host = import_module("comfy_execution.cache_provider")
    while _offered:
        host.unregister_cache_provider(_offered.pop())
    if results is None:
        return

    class Provider(host.CacheProvider):
        def should_cache(self, context: Any, value: Any = None) -> bool:
            return wanted(context.node_id)

        async def on_lookup(self, context: Any) -> Any:
            return results.get(context.cache_key_hash)

        async def on_store(self, context: Any, value: Any) -> None:
            results.put(context.cache_key_hash, value)

    _offered.append(Provider())
    host.register_cache_provider(_offered[0])


def changes_weights(layer: nn.Module) -> bool:
    """Does one of the host's layers cast, move or patch its weight in each call? Other layers do not."""
    return any(getattr(layer, name, None) for name in ("comfy_cast_weights", "weight_function", "bias_function"))


class Fetched:
    """The modules of a block whose weights every step reads, as the host's prefetch asks for them."""

    def __init__(self, block: nn.Module, spared: type[nn.Module]):
        off = {id(part) for held in block.modules() if isinstance(held, spared) for part in held.modules()}
        self.block, self.parts = block, [part for part in block.modules() if id(part) not in off]

    def modules(self) -> Iterator[nn.Module]:
        """The host's name."""
        return iter(self.parts)


@contextmanager
def prefetched(
    blocks: Iterable[nn.Module], spared: type[nn.Module], device: torch.device, options: Mapping[str, Any]
) -> Iterator[None]:
    """Within, a host with dynamic VRAM fetches a block's weights as one when the block is called.

    Modules of the kind `spared` are left out. `options` are the run's transformer options: the host says in them
    whether it wants this.
    """
    queue, waiting = None, [Fetched(block, spared) for block in blocks]
    if find_spec("comfy.model_prefetch") is not None:
        prefetch = import_module("comfy.model_prefetch")
        queue = prefetch.make_prefetch_queue(list(waiting), device, options)
    if queue is None:
        yield
        return

    def fetch(block: nn.Module, *_: Any) -> None:
        if waiting and block is waiting[0].block:  # a block may be called more than once
            prefetch.prefetch_queue_pop(queue, device, waiting.pop(0).block)

    handles = [held.block.register_forward_pre_hook(fetch) for held in waiting]
    try:
        yield
        if not waiting:
            prefetch.prefetch_queue_pop(queue, device, None)
    finally:
        for handle in handles:
            handle.remove()
