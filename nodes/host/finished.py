"""Finished sections in memory, for hosts whose cache drops them before a longer plan asks for them again.

Under memory pressure, which its default setting always sees, a newer host drops after each node every result that the
current run has not asked for yet. It asks for a section's result once SectionSampler has expanded, and drops it before,
while the planner runs. The host offers an interface to caches from outside; this is a small one, for the nodes that
SectionSampler expands into: sections, and the prompts that they need. What decodes them is left to the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import Any

from torch import Tensor

from .versions import offer_results

CHILDREN = ("section_", "prompt_", "blend_")  # how the names of those nodes begin in the expansion
MAX_BYTES = 512 * 2**20
MAX_NODES = 64


class FinishedSections:
    """Results by the host's key of a node: of all its inputs and ancestors. The least recently used go first."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes, self.held, self.lock = max_bytes, 0, Lock()
        self.results: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, key: str) -> Any | None:
        """The result under a key."""
        with self.lock:
            if key not in self.results:
                return None
            self.results.move_to_end(key)
            return self.results[key][0]

    def put(self, key: str, result: Any) -> None:
        """Keep a result; one that is larger than all the room is not kept."""
        size = sum(tensor.nbytes for tensor in _tensors(result.outputs))
        if size > self.max_bytes:
            return
        with self.lock:
            self.held += size - self.results.pop(key, (None, 0))[1]
            self.results[key] = result, size
            while self.held > self.max_bytes:
                self.held -= self.results.popitem(last=False)[1][1]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


_SECTIONS = FinishedSections()


def remember_sections(num_nodes: int) -> None:
    """From now on, keep the results of a plan of so many nodes, where the host offers that and its cache drops them.

    Not of a long plan: the host's key of a node holds every node that it depends on, and takes the square of their
    number to compute.
    """
    offer_results(is_kept, _SECTIONS if num_nodes <= MAX_NODES else None)


def is_kept(node_id: str) -> bool:
    """Is it a node of an expansion whose result is kept? The id of one is its parent's, dots, and its own name."""
    parent, _, name = node_id.rpartition(".")
    return bool(parent) and name.startswith(CHILDREN)
