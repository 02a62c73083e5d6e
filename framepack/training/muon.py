"""Muon (Jordan et al. 2024) for matrices: momentum, made orthogonal by Newton-Schulz iteration, then a step.

Over all matrices of one shape at once, and in float32 where the processor has no bfloat16 products: torch.optim.Muon
works one by one and in bfloat16, which there takes longer than the rest of a small model's step. Dims: m matrices, r c
their sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic that drives singular values towards 1
STEPS = 5


def orthogonalised(g: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """The nearest matrices with singular values of about 1 to g ``m r c``, multiplied in the dtype `products`."""
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(products)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(g)


class Muon(torch.optim.Optimizer):
    """For two-dimensional parameters only; a step has the size of AdamW's at the same rate."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        products: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.products = products

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
        updates = orthogonalised(torch.stack(directions), self.products)
        scale = 0.2 * max(updates.shape[1:]) ** 0.5  # the root mean square of an AdamW update
        for p, update in zip(params, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)
