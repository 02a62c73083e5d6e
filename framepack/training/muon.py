"""Muon (Jordan et al. 2024) for matrices: momentum, made orthogonal by Newton-Schulz iteration, then a step.

In float32 and over all matrices of one shape at once: torch.optim.Muon works in bfloat16 and one by one, which on a
CPU without bfloat16 products takes longer than the rest of a small model's step. Dims: m matrices, r c their sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic that drives singular values towards 1
STEPS = 5


def orthogonalised(g: Tensor) -> Tensor:
    """The nearest matrices with singular values of about 1 to g ``m r c``.

    Every iteration multiplies x from the left by a polynomial of its Gram matrix. These are multiplied first, on the
    small side, and x once: for the wide matrices of the packing layers a fifth of the work.
    """
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    unit = torch.eye(gram.shape[-1], device=g.device)
    a, b, c = COEFFICIENTS
    factor = unit
    for _ in range(STEPS):
        polynomial = a * unit + b * gram + c * gram @ gram
        factor = polynomial @ factor
        gram = polynomial @ gram @ polynomial
    x = factor @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For two-dimensional parameters only; a step has the size of AdamW's at the same rate."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for params in by_shape.values():
                self._step(params, group)

    def _step(self, params: list[nn.Parameter], group: dict) -> None:
        directions = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            directions.append(torch.lerp(p.grad, state["momentum"], group["momentum"]))  # Nesterov's
        updates = orthogonalised(torch.stack(directions))
        scale = 0.2 * max(updates.shape[1:]) ** 0.5  # the root mean square of an AdamW update
        for p, update in zip(params, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)
