"""Peak memory of a forward beyond weights and inputs, against diffusers' transformer.

python -m benchmarks.activations [--case NAME]

PyTorch's allocator says what it hands out and takes back; the peak of their running sum is what a forward needs, the
scratch of its operators with it. Both models are measured the same way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from .cases import FULL, IMAGE, WORDS, Case, Pair
from .timing import RESULTS, circumstances

CASES = {name: FULL[name] for name in FULL if "4 + 8 blocks" in name}


def peak(forward: Callable[[], object]) -> int:
    """Bytes at the highest point of a forward, over those that were there before it."""
    forward()  # what is made once and kept does not count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = forward()
    del kept
    events, found = list(record.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events += event.children
        if event.typed[0] == _EventType.Allocation:
            found.append((event.start_time_ns, event.typed[1].alloc_size))
    now = highest = 0
    for _, size in sorted(found, key=lambda pair: pair[0]):
        now += size
        highest = max(highest, now)
    return highest


def measure(name: str, case: Case) -> str:
    """A row of the table."""
    pair = Pair(case)
    ours, theirs = peak(pair.ours), peak(pair.theirs)
    tokens, _ = pair.dit.pack(pair.given["x"], range(9), pair.history)
    one = (tokens.shape[1] + WORDS + IMAGE) * tokens.shape[2] * tokens.element_size()
    each = " | ".join(f"{size / 2**20:.0f} MiB, {size / one:.1f}" for size in (ours, theirs))
    return f"| {name} | {each} | {ours / theirs:.2f} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=list(CASES))
    args = parser.parse_args()
    rows = [measure(name, case) for name, case in CASES.items() if args.case in (None, name)]
    head = [
        *("# Peak memory of a forward, beyond weights and inputs", "", circumstances(), ""),
        "The second figure of a cell counts in tensors of one value per token and channel of the residual stream.",
        "",
    ]
    text = "\n".join([*head, "| case | ours | diffusers | ratio |", "|---|---|---|---|", *rows]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "activations.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
