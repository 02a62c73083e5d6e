"""All that differs between ComfyUI versions. Nothing else asks what a host has.

The oldest supported version is 0.3.75; docs/hosts.md names the newest that was run.
"""

from __future__ import annotations

from dataclasses import fields, replace

from comfy_api.latest import io

import nodes as stock


def hidden(schema: io.Schema) -> io.Schema:
    """A node's schema that the page's search leaves out: for developers only, or deprecated where that is unknown."""
    known = {field.name for field in fields(schema)}
    return replace(schema, **{"is_dev_only" if "is_dev_only" in known else "is_deprecated": True})


def node_ids() -> set[str]:
    """The ids of all nodes that the host and other packs have registered so far."""
    return set(stock.NODE_CLASS_MAPPINGS)
