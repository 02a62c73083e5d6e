"""Run inside the host by inside.py: how long the pack takes to load, in seconds of this process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import nodes

before = set(sys.modules)
start = time.process_time()
assert asyncio.run(nodes.load_custom_node(os.environ["FRAMEPACK_PACK"], module_parent="custom_nodes"))
taken = time.process_time() - start
sys.stdout.write(json.dumps({"result": {"seconds": taken, "modules": sorted(set(sys.modules) - before)}}))
