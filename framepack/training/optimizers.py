"""Optimizers: torch's Adafactor (the paper's, section 4.2), AdamW and Muon, and weights in bfloat16 without a copy.

Muon takes the matrices inside numbered blocks; all else goes to AdamW. Rounded stochastically, a value goes up or down
with the chance that keeps the mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .config import Stage
from .parallel import ShardedAdafactor

PACKING = r"\.(clean_x_embedder|patch_(short|mid|long))\."  # names of the packing layers of every backbone
IN_BLOCK = re.compile(r"\.\d+\.")
AT_ONCE = 2**26  # values that are stepped in float32 together


def round_stochastically(x: Tensor, source: torch.Generator) -> Tensor:
    """x float32 -> bfloat16, each value up or down so that the mean over many roundings is x."""
    bits = x.contiguous().view(torch.int32)
    dither = torch.randint(0, 1 << 16, x.shape, dtype=torch.int32, device=x.device, generator=source)
    return ((bits + dither) & -65536).view(torch.float32).bfloat16()


def trained(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters that a stage trains, by name; the others stop taking gradients.

    `pattern` is "full", "packing", or a regular expression that is searched for in the names.
    """
    wanted = re.compile({"full": "", "packing": PACKING}.get(pattern, pattern))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted.search(name) is not None)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class TogetherMuon(torch.optim.Muon):
    """torch's Muon (Jordan et al. 2024) with the matrices of one shape orthogonalized together, in fewer products."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():
                self._step_alike(parameters, group)

    def _step_alike(self, parameters: list[nn.Parameter], group: dict) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        momentum, grads = group["momentum"], torch.stack([parameter.grad for parameter in parameters])
        held = torch.stack([self.state[parameter]["momentum_buffer"] for parameter in parameters])
        held.lerp_(grads, 1 - momentum)
        updates = orthogonal(grads.lerp(held, momentum), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5  # "match_rms_adamw"
        for parameter, own, update in zip(parameters, held, updates.to(held.dtype), strict=True):
            self.state[parameter]["momentum_buffer"].copy_(own)
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices ``n o i`` moved towards orthogonal ones by Newton and Schulz's iteration.

    In bfloat16, as torch does it; on a CPU in float32, since many have no fast products of bfloat16.
    """
    a, b, c = coefficients
    tall = x.shape[1] > x.shape[2]
    x = (x.mT if tall else x).to(torch.float32 if x.device.type == "cpu" else torch.bfloat16)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizers:
    """The optimizers of one stage over named parameters, with their state by name.

    Parameters in bfloat16 have a float32 twin that is stepped in their place: a master copy with `master`, else one
    that exists during its step only and is rounded stochastically.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], stage: Stage, master: bool = True):
        self.named, self.master = dict(named), master
        self.twins = {
            n: nn.Parameter(p.detach().float() if master else _nothing(p)) for n, p in named.items() if _narrow(p)
        }
        self.each = list(self._make(stage))

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The most precise weights there are, by name."""
        return self.named | (self.twins if self.master else {})

    def _make(self, stage: Stage) -> Iterator[torch.optim.Optimizer]:
        matrices, rest, decay = {}, self.named | self.twins, stage.weight_decay
        if stage.optimizer == "muon":
            matrices = {n: rest.pop(n) for n, p in self.named.items() if p.ndim == 2 and IN_BLOCK.search(n)}
        if matrices:
            sharded = any(isinstance(parameter, DTensor) for parameter in matrices.values())
            kind = torch.optim.Muon if sharded else TogetherMuon
            yield kind(list(matrices.values()), lr=stage.rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        if rest and stage.optimizer == "adafactor":
            sharded = all(isinstance(parameter, DTensor) for parameter in rest.values())
            kind = ShardedAdafactor if sharded else torch.optim.Adafactor
            yield kind(rest.values(), lr=stage.rate, weight_decay=decay, foreach=False)
        elif rest:
            yield torch.optim.AdamW(rest.values(), lr=stage.rate, betas=(0.9, 0.99), weight_decay=decay, fused=True)

    @torch.no_grad()
    def step(self, rate: float, source: torch.Generator) -> None:
        """One step at a rate; `source` decides how weights are rounded. Gradients are used up."""
        for group in (group for optimizer in self.each for group in optimizer.param_groups):
            group["lr"] = rate
        if len(self.twins) < len(self.named):
            self._step_all()
        for names in self._runs(self.twins):
            for name in names:
                self._fill(name)
            self._step_all()
            for name in names:
                self._empty(name, source)

    def _step_all(self) -> None:
        """Step whatever has a gradient."""
        for optimizer in self.each:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _fill(self, name: str) -> None:
        parameter, twin = self.named[name], self.twins[name]
        if not self.master:
            twin.data = parameter.detach().float()
        if parameter.grad is not None:
            twin.grad, parameter.grad = parameter.grad.float(), None

    def _empty(self, name: str, source: torch.Generator) -> None:
        parameter, twin = self.named[name], self.twins[name]
        parameter.copy_(twin if self.master else round_stochastically(twin.data, source))
        if not self.master:
            twin.data = _nothing(parameter)

    def _runs(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Names in runs of about AT_ONCE values."""
        run, size = [], 0
        for name in names:
            run.append(name)
            size += self.named[name].numel()
            if size >= AT_ONCE:
                yield run
                run, size = [], 0
        if run:
            yield run

    def state(self) -> dict[str, Any]:
        """The optimizers' state: ``{parameter: {key: value}}``."""
        names = {id(p): name for name, p in (self.named | self.twins).items()}
        return {names[id(p)]: dict(values) for optimizer in self.each for p, values in optimizer.state.items()}

    def begin(self, names: Iterable[str]) -> None:
        """Make the state of these parameters as a first step does, but change no weight: a state is read into it."""
        for name in names:
            self.named[name].grad = torch.zeros_like(self.named[name])
        self.step(0.0, torch.Generator(next(iter(self.named.values())).device))

    def loaded(self) -> None:
        """Master copies were read: the parameters follow them."""
        for name, twin in self.twins.items():
            if self.master:
                self.named[name].data.copy_(twin.data)


def state_bytes(named: Mapping[str, Tensor], kind: str) -> tuple[int, int]:
    """Bytes of an optimizer's state over parameters, and of what a step makes beside it at its most."""
    state, most = 0, 0
    for name, p in named.items():
        num, sides = p.numel(), p.shape[-2:]
        if kind == "adafactor" and p.ndim > 1:
            state += 4 * (num // sides[1] + num // sides[0])
        elif kind == "muon" and p.ndim == 2 and IN_BLOCK.search(name):
            state += 4 * num
        else:
            state += 4 * num if kind == "adafactor" else 8 * num
        most = max(most, {"adafactor": 8, "adamw": 0, "muon": 16}[kind] * num)
    return state, most


def _narrow(parameter: Tensor) -> bool:
    return parameter.dtype != torch.float32


def _nothing(parameter: Tensor) -> Tensor:
    return torch.empty((0,) * parameter.ndim, dtype=torch.float32, device=parameter.device)
