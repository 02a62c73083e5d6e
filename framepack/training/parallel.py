"""Several processes, one for each GPU, as torchrun starts them: sharded weights (FSDP2) and shared batches.

Dims of sharded matrices: o rows, which are shared out, i columns.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard

from ..models.packed import PackedDiT
from ..nn.layers import Modulation
from ..nn.ulysses import DIMENSION, ulysses
from .settings import ConfigError
from .trainees import blocks_of

PATIENCE = timedelta(hours=24)  # one process encodes the data while the others wait


def alone() -> bool:
    """Is this the only process of the run?"""
    return not (dist.is_available() and dist.is_initialized())


def rank() -> int:
    """This process's number."""
    return 0 if alone() else dist.get_rank()


def world() -> int:
    """How many processes there are."""
    return 1 if alone() else dist.get_world_size()


def wait() -> None:
    """Until every process is here."""
    if not alone():
        dist.barrier()


def any_of(value: bool) -> bool:
    """Is it true in any process? All of them get the same answer."""
    if alone():
        return value
    answers: list[bool] = [False] * world()
    dist.all_gather_object(answers, value)
    return any(answers)


def all_of(values: list[float], sequence: int = 1) -> tuple[float, ...]:
    """The values of all processes, in their order; of each group of `sequence`, which have the same, once."""
    if alone():
        return tuple(values)
    gathered: list[list[float]] = [[] for _ in range(world())]
    dist.all_gather_object(gathered, values)
    return tuple(value for each in gathered[::sequence] for value in each)


def start(device: str) -> torch.device:
    """Join the processes that torchrun started, if it did; this process's device. `device` "" chooses."""
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and alone():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    if alone():
        return torch.device(device or kind)
    here = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(here)
    return here


def check_sequence(sequence: int) -> None:
    """Raises ConfigError where the processes cannot be split into groups of so many."""
    if world() % sequence:
        raise ConfigError(
            f"run.sequence must divide the number of processes, {world()}; got {sequence}. Use 1, or start torchrun "
            "with a multiple of it."
        )


def share_tokens(dit: PackedDiT, device: torch.device, sequence: int) -> None:
    """Share each clip's tokens out over groups of `sequence` processes (DeepSpeed-Ulysses).

    Raises FramePackError where the attention heads cannot be.
    """
    shape, names = (world() // sequence, sequence), ("data", DIMENSION)
    dit.attention = ulysses(dit.attention, init_device_mesh(device.type, shape, mesh_dim_names=names))
    dit.ranks.check_heads(dit.spec.heads)


def shard(dit: nn.Module, device: torch.device, weights: str) -> None:
    """Share a backbone's weights out over the processes, block by block. Raises ConfigError where that cannot be."""
    if weights == "bf16":
        raise ConfigError("model.weights = 'bf16' is available for one process only. Use 'fp32' with several.")
    mesh = init_device_mesh(device.type, (world(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in blocks_of(dit):
        for layer in block.modules():
            if isinstance(layer, Modulation):  # it is called before its block is
                fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(dit, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """A tensor from its shards; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class ShardedAdafactor(torch.optim.Adafactor):
    """torch's Adafactor (Shazeer and Stern 2018) for weights that are shared out by rows. Other weights go to torch's.

    Each process updates its own rows; sums over rows, and norms, are summed over all processes.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: DTensor, group: dict) -> None:
        state, grad, own = self._state(parameter), parameter.grad.to_local(), parameter.to_local()
        eps, least = torch.finfo(parameter.dtype).eps, group["eps"][1]
        state["step"] += 1
        step = state["step"].item()
        share, rate = step ** group["beta2_decay"], min(group["lr"], 1 / step**0.5)
        size = max(least, self._norm(own, parameter) / parameter.numel() ** 0.5) * rate
        if group["weight_decay"]:
            own.mul_(1 - group["lr"] * group["weight_decay"])
        update = self._variance(parameter, state, grad, share, eps).clamp_(min=eps * eps).rsqrt_().mul_(grad)
        spread = max(1.0, self._norm(update, parameter) / (parameter.numel() ** 0.5 * group["d"]))
        own.add_(update, alpha=-size / spread)

    def _state(self, parameter: DTensor) -> dict:
        state = self.state[parameter]
        if not state:
            mesh, grad = parameter.device_mesh, parameter.grad.to_local()
            state["step"] = torch.tensor(0.0)
            if parameter.ndim < 2:
                state["variance"] = torch.zeros_like(parameter.grad)
            else:
                shape = parameter.shape
                rows, columns = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
                own = grad.new_zeros(*grad.shape[:-1], 1)
                state["row_var"] = _sharded(own, rows, parameter)
                if parameter.ndim == 2:
                    state["col_var"] = DTensor.from_local(grad.new_zeros(columns), mesh, [Replicate()])
                else:
                    state["col_var"] = _sharded(grad.new_zeros(*grad.shape[:-2], 1, shape[-1]), columns, parameter)
        return state

    def _variance(self, parameter: DTensor, state: dict, grad: Tensor, share: float, eps: float) -> Tensor:
        """The running mean of the gradient's squares at this process's rows, factored in rows and columns."""
        if parameter.ndim < 2:
            variance = state["variance"].to_local()
            return variance.lerp_(grad * grad, share).clone()
        rows, columns = state["row_var"].to_local(), state["col_var"].to_local()
        rows.lerp_(grad.square().mean(-1, keepdim=True), share)
        if parameter.ndim > 2:  # rows and columns lie within each process
            columns.lerp_(grad.square().mean(-2, keepdim=True), share)
            mean = rows.mean(-2, keepdim=True)
        else:
            total = parameter.shape[-2]
            columns.lerp_(self._sum(grad.square().sum(-2, keepdim=True), parameter) / total, share)
            mean = self._sum(rows.sum(-2, keepdim=True), parameter) / total
        return (rows @ columns).div_(mean.clamp_(min=eps))

    def _norm(self, own: Tensor, parameter: DTensor) -> float:
        return self._sum(own.square().sum(), parameter).sqrt().item()

    @staticmethod
    def _sum(value: Tensor, parameter: DTensor) -> Tensor:
        """The sum over all processes."""
        dist.all_reduce(value, group=parameter.device_mesh.get_group())
        return value


def _sharded(local: Tensor, shape: tuple[int, ...], like: DTensor) -> DTensor:
    """A tensor of a whole shape whose rows are shared out as another's are."""
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        local, like.device_mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
    )
