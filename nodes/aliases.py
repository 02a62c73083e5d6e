"""Older ids of two nodes, which other packs register too. Saved workflows with them still open and run.

A node under such an id is left out of the search, which lists the node under its own id. An id that another pack has
taken stays that pack's.
"""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from . import host
from .loader import FramePackLoadModel
from .sampling import FramePackSolver


class LoadFramePackModel(FramePackLoadModel):
    """FramePackLoadModel under its older id."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return host.hidden(replace(super().define_schema(), node_id="LoadFramePackModel"))


class FramePackSampler(FramePackSolver):
    """FramePackSolver under its older id."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return host.hidden(replace(super().define_schema(), node_id="FramePackSampler"))


def free_aliases() -> list[type[io.ComfyNode]]:
    """The older ids that no other pack has taken."""
    taken = host.node_ids()
    return [alias for alias in (LoadFramePackModel, FramePackSampler) if alias.__name__ not in taken]
