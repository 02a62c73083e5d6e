"""Run inside the host by inside.py: prints which pack owns each node id, and its name on the page, JSON."""

from __future__ import annotations

import json
import sys

import nodes

owners = {i: getattr(kind, "RELATIVE_PYTHON_MODULE", "") for i, kind in nodes.NODE_CLASS_MAPPINGS.items()}
names = {i: nodes.NODE_DISPLAY_NAME_MAPPINGS.get(i) for i in owners}
sys.stdout.write(json.dumps({"result": {"owners": owners, "names": names}}))
