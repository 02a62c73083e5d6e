"""Run by the host's Python in the host's folder: loads packs in an order, then runs a script with them loaded.

python inside.py PACKS SCRIPT      PACKS are separated by the system's path separator
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys

packs, script = sys.argv[1].split(os.pathsep), sys.argv[2]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, ".")  # the host's own folder

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401 - as in main.py: `nodes` puts another `utils` first on the path
from sitecustomize import mend_torchvision  # noqa: E402 - of tools/shim, which is on the path

mend_torchvision()

import server  # noqa: E402

import nodes  # noqa: E402


async def load() -> None:
    """Load them one after another, as the host does; its server does not listen."""
    server.PromptServer(asyncio.get_running_loop())
    for pack in packs:
        assert await nodes.load_custom_node(pack, module_parent="custom_nodes"), pack


asyncio.run(load())
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name="__main__")
