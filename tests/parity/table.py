"""Print every parity figure as a table for docs/parity.md.

python -m tests.parity.table
"""

from __future__ import annotations

import sys

import torch

import tests.conftest  # noqa: F401 - mends torchvision before diffusers comes in
from tests.framepack.test_sampling import error, euler, unipc
from tests.parity.reference import Case, models
from tests.parity.test_hunyuan import both, relative
from tests.parity.test_pipeline import case, inputs, ours, theirs


def main() -> None:
    """Measure and print."""
    rows = []
    forwards = [relative(*both(Case.draw(seed))) for seed in range(24)]
    rows.append(("one forward of the DiT, 24 configurations", "1e-4", f"{max(forwards):.1e}"))
    for order, with_end in (("inverted", False), ("inverted", True), ("forward", False)):
        for cfg in (1.0, 3.0):
            transformer, dit = models(case(order == "forward"))
            given = inputs(with_end)
            with torch.no_grad():
                expected, got = theirs(transformer, order, given, cfg), ours(dit, order, given, cfg)
            worst = max(relative(got[:, :, i], expected[:, :, i]) for i in range(got.shape[2]))
            name = f"four sections, {order}{', end frame' if with_end else ''}, cfg {cfg:g}"
            rows.append((name, "1e-3", f"{worst:.1e}"))
    for solver, order in ((euler, 1), (unipc, 2), (unipc, 3), (unipc, 4)):
        options = {"order": order - 1} if solver is unipc else {}
        slope = torch.log2(torch.tensor(error(solver, 64, **options) / error(solver, 128, **options))).item()
        name = f"UniPC of order {order - 1}" if solver is unipc else "Euler"
        rows.append((f"{name}: order of the error", str(order), f"{slope:.2f}"))
    lines = ["| what | bound | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
