"""Run a tool from any folder and by any Python, the portable build's too, which does not search the current folder.

python tools demo --seconds 2
python tools client http://127.0.0.1:8188 workflows/api/image_to_video_small.json
python tools framepack schedule inverted
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
TOOLS = {name: f"tools.{name}" for name in ("demo", "client", "test", "environment", "fuzz", "gpu_check")}
TOOLS["framepack"] = "framepack"


def main() -> None:
    """Run the tool that the first argument names."""
    sys.path.insert(0, str(REPO))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TOOLS:
        sys.exit(f"usage: python tools NAME ...\nNAME is one of {', '.join(TOOLS)}; got {name!r}.")
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    runpy.run_module(TOOLS[name], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
