"""Encodes a training data set with ComfyUI's VAE and text encoders, without its server.

Run by ComfyUI's Python in ComfyUI's folder, by `framepack/training/elsewhere.py`. It reads a request in JSON from
standard input, and writes what came of it as the last line of its output.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
NAME = "framepack_pack"  # this pack's, as a package


def load_pack() -> Any:
    """The pack as a package of its own, as ComfyUI loads it."""
    spec = importlib.util.spec_from_file_location(NAME, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return importlib.import_module(f"{NAME}.nodes.host.encode_request")


def main() -> None:
    """Encode, and say what came of it."""
    request = json.load(sys.stdin)
    sys.path[0] = request["comfyui"]  # in place of this file's folder, whose names are also others'
    sys.argv[1:] = request["arguments"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401 - as in main.py: `nodes` puts another `utils` first on the path

    fault = load_pack().encode(request)
    sys.stdout.write(json.dumps({"framepack": fault}) + "\n")


if __name__ == "__main__":
    main()
