"""Run inside the host by inside.py: every branch of nodes/host/versions.py, whichever of them this host takes."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import comfy.model_patcher
import torch
from checks import module_of, report
from torch import nn

versions, finished = module_of("nodes.host.versions"), module_of("nodes.host.finished")


@dataclass
class OldSchema:
    is_deprecated: bool = False


@dataclass
class NewSchema(OldSchema):
    is_dev_only: bool = False


def check_a_node_is_hidden_as_deprecated_where_a_host_knows_nothing_better():
    assert versions.hidden(OldSchema()) == OldSchema(is_deprecated=True)
    assert versions.hidden(NewSchema()) == NewSchema(is_dev_only=True)


def check_registered_ids_are_seen():
    assert {"KSampler", "SectionSampler"} <= versions.node_ids()


def check_a_model_gets_dynamic_vram_where_the_host_has_it_and_it_is_wanted():
    class Dynamic(comfy.model_patcher.ModelPatcher):
        pass

    plain = comfy.model_patcher.ModelPatcher
    with patch.object(comfy.model_patcher, "CoreModelPatcher", Dynamic, create=True):
        assert versions.patcher_class(dynamic=True) is Dynamic
        assert versions.patcher_class(dynamic=False) is plain
        del comfy.model_patcher.CoreModelPatcher
        assert versions.patcher_class(dynamic=True) is plain
        comfy.model_patcher.CoreModelPatcher = Dynamic  # for patch to take away


def check_a_wan_decoder_without_old_frames_gets_two_at_once():
    old, new = nn.Module(), nn.Module()
    new.run_up = lambda: None
    assert versions.latents_at_once(old) == 1
    assert versions.latents_at_once(new) == 2


class Spared(nn.Linear):
    pass


def run_of_blocks(queue: list | None) -> tuple[list, list, list[nn.Module]]:
    """Calls and queue of the host's prefetch in a pass over two blocks, the first of which is called twice."""
    calls, queues = [], []
    module = ModuleType("comfy.model_prefetch")
    module.__spec__ = ModuleSpec("comfy.model_prefetch", None)
    module.make_prefetch_queue = lambda held, device, options: queues.append((held, device, options)) or queue
    module.prefetch_queue_pop = lambda held, device, block: calls.append((held, device, block))
    blocks = [nn.Sequential(nn.Linear(2, 2), Spared(2, 2)) for _ in range(2)]
    options = {"prefetch_dynamic_vbars": True}
    with (
        patch.dict(sys.modules, {"comfy.model_prefetch": module}),
        versions.prefetched(blocks, Spared, torch.device("cpu"), options),
    ):
        for block in (blocks[0], blocks[0], blocks[1]):
            block(torch.zeros(1, 2))
    for block in blocks:
        block(torch.zeros(1, 2))  # outside of a pass nothing is fetched
    return calls, queues, blocks


def check_blocks_are_fetched_in_turn_without_what_has_tables():
    queue: list = []
    calls, ((held, device, options),), blocks = run_of_blocks(queue)
    assert [block for _, _, block in calls] == [*blocks, None]
    assert all(of is queue and on == device for of, on, _ in calls)
    assert options == {"prefetch_dynamic_vbars": True}
    for entry, block in zip(held, blocks, strict=True):
        assert list(entry.modules()) == [block, block[0]]


def check_nothing_is_fetched_where_the_host_does_not_want_it():
    calls, (_,), _ = run_of_blocks(None)
    assert calls == []


def check_nothing_is_fetched_where_the_host_has_no_prefetch():
    with patch.object(versions, "find_spec", lambda name: None):
        calls, queues, _ = run_of_blocks([])
    assert calls == queues == []


def module_of_caches() -> tuple[ModuleType, list]:
    """A stand-in for the host's interface to caches from outside, and what has been registered there."""
    module, registered = ModuleType("comfy_execution.cache_provider"), []
    module.__spec__ = ModuleSpec("comfy_execution.cache_provider", None)
    module.CacheProvider = object
    module.register_cache_provider = registered.append
    module.unregister_cache_provider = registered.remove
    return module, registered


def check_results_of_sections_are_offered_to_the_host_once_and_taken_back():
    module, registered = module_of_caches()
    held, value = finished.FinishedSections(max_bytes=100), SimpleNamespace(outputs=[[{"samples": torch.zeros(10)}]])
    with patch.dict(sys.modules, {"comfy_execution.cache_provider": module}):
        for _ in range(2):
            versions.offer_results(finished.is_kept, held)
        (provider,) = registered
        versions.offer_results(finished.is_kept, None)
        assert registered == []
    section, other = (SimpleNamespace(node_id=name, cache_key_hash="a") for name in ("7.0.0.section_3", "section_3"))
    assert provider.should_cache(section)
    assert not provider.should_cache(other, value)
    assert asyncio.run(provider.on_lookup(section)) is None
    asyncio.run(provider.on_store(section, value))
    assert asyncio.run(provider.on_lookup(section)) is value


def check_the_oldest_results_go_when_there_is_no_room():
    held = finished.FinishedSections(max_bytes=100)
    results = {key: SimpleNamespace(outputs=[[{"samples": torch.zeros(10)}]]) for key in "abc"}  # 40 bytes each
    held.put("a", results["a"])
    held.put("b", results["b"])
    assert held.get("a") is results["a"]
    held.put("c", results["c"])
    assert [held.get(key) for key in "abc"] == [results["a"], None, results["c"]]
    held.put("d", SimpleNamespace(outputs=[torch.zeros(100)]))
    assert held.get("d") is None
    held.put("a", results["b"])
    assert held.held == 80


def check_nothing_is_offered_where_the_host_takes_nothing():
    module, registered = module_of_caches()
    with (
        patch.object(versions, "find_spec", lambda name: None),
        patch.dict(sys.modules, {"comfy_execution.cache_provider": module}),
    ):
        versions.offer_results(finished.is_kept, finished.FinishedSections())
    assert registered == []


def check_a_layer_that_changes_its_weight_in_each_call_is_told():
    plain, casts = nn.Linear(1, 1), nn.Linear(1, 1)
    casts.comfy_cast_weights = True
    assert not versions.changes_weights(plain)
    assert versions.changes_weights(casts)


if __name__ == "__main__":
    report(globals())
