"""Run by the host's Python in the host's folder: loads packs in an order, and prints who has which node id, JSON.

python load_packs.py PACK [PACK ...]
"""

from __future__ import annotations

import asyncio
import json
import sys

packs = sys.argv[1:]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, ".")  # the host's own folder

from sitecustomize import mend_torchvision  # noqa: E402 - of tools/shim, which is on the path

mend_torchvision()

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import nodes  # noqa: E402


async def load() -> None:
    """Load them one after another, as the host does."""
    for pack in packs:
        assert await nodes.load_custom_node(pack, module_parent="custom_nodes"), pack


asyncio.run(load())
kinds = {
    node_id: kind for node_id, kind in nodes.NODE_CLASS_MAPPINGS.items() if hasattr(kind, "RELATIVE_PYTHON_MODULE")
}
found = {
    "owners": {node_id: kind.RELATIVE_PYTHON_MODULE for node_id, kind in kinds.items()},
    "names": {node_id: nodes.NODE_DISPLAY_NAME_MAPPINGS.get(node_id) for node_id in kinds},
}
json.dump(found, sys.stdout)
