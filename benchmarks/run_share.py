"""The pack's own share of a demo run: all time in its nodes outside model and VAE, over the run's.

python -m benchmarks.run_share [--seconds S] [--runs N]

A real ComfyUI runs the shipped small workflow from nothing kept, with timers in it (benchmarks/share_probe). The
pack's are planning, expansion, gathering, keys and store, previews and progress, loading its files, conditioning, and
the pieces of decoding between calls of the VAE, with all that these call. The model is the DiT's forward, packing
included, and the text encoder's. The rest is the host's: its executor, sampling, video encoding, other nodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from tools.client import edited, run
from tools.demo import WORKFLOW
from tools.host import link_folder, running

from .timing import RESULTS, circumstances

PROBE = Path(__file__).parent / "share_probe"
PARTS = {"pack": "the pack's own", "model": "model", "VAE": "VAE", "host": "host"}


def measure(seconds: float) -> dict[str, float]:
    """Seconds of a run by part, in a fresh host."""
    with tempfile.TemporaryDirectory() as name:
        base, found = Path(name) / "host", Path(name) / "share.json"
        (base / "custom_nodes").mkdir(parents=True)
        link_folder(base / "custom_nodes" / PROBE.name, PROBE)
        with running(base, environment={"FRAMEPACK_SHARE": str(found)}) as host:
            run(host.url, edited(json.loads(WORKFLOW.read_text("utf-8")), {("EndpointPlanner", "seconds"): seconds}))
            host.stop()  # it has written by then
        return json.loads(found.read_text("utf-8"))


def main() -> None:
    """Command line; prints and writes benchmarks/results/run_share.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    runs = [measure(args.seconds) for _ in range(args.runs)]
    totals = [sum(spent.values()) for spent in runs]
    shares = {part: sorted(spent[part] / total for spent, total in zip(runs, totals, strict=True)) for part in PARTS}
    took = f"{statistics.median(totals):.0f} s"
    what = f"{WORKFLOW.stem}, {args.seconds:g} s of video, {args.runs} runs of {took}: median, least and most"
    head = f"# A demo run\n\n{circumstances()}. {what}.\n\n"
    rows = []
    for (part, said), found in zip(PARTS.items(), shares.values(), strict=True):
        spread = f"{statistics.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})"
        rows.append(f"| {said} | {'0.03' if part == 'pack' else '-'} | {spread} |")
    text = head + "| share of the run | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "run_share.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
