"""Attention over several processes (DeepSpeed-Ulysses, arXiv 2309.14509): each holds some of the tokens.

Everything but attention makes a token from that token alone, so a process keeps its own rows through all blocks. Around
self-attention two exchanges turn rows of all heads into all rows of some heads, and back. Any number of tokens will do:
processes hold as many, but for one. An exchange's gradient is the exchange back, so the sum of all processes' gradients
is that of one process with all tokens.

Dims: b batch, l tokens, n heads, e head dim; p processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ..errors import FramePackError
from .ranks import Ranks, Shares

Attention = Callable[..., Tensor]
DIMENSION = "sequence"  # of a device mesh


@dataclass(frozen=True, kw_only=True)
class Ulysses:
    """An attention of the registry over several processes; q, k, v are those of their own rows.

    Called plainly, as for text, it is the inner attention.
    """

    inner: Attention
    ranks: Ranks

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """q, k, v ``b n l e`` of this process alone -> ``b l n*e``."""
        return self.inner(q, k, v, **options)

    def across(self, own: list[Tensor], *, shares: Shares, reads: bool, **options: Any) -> Tensor:
        """v, k and q ``b n l e`` of own rows, which see every process's -> ``b l n*e``. The list is emptied.

        With `reads` q are those of the tokens that are read.
        """
        rows = shares.read_queries if reads else shares.queries
        self.ranks.check_heads(own[0].shape[1])
        q, k, v = (self._all_rows(own.pop(), lengths) for lengths in (rows, shares.keys, shares.keys))  # b n/p l e
        return self._own_rows(self.inner(q, k, v, **options), rows)

    def _all_rows(self, x: Tensor, rows: list[int]) -> Tensor:
        """Own rows of all heads ``b n l e`` -> all rows of this process's heads ``b n/p l e``."""
        p, own = self.ranks.world, x.shape[2]
        sent = x.unflatten(1, (p, -1)).permute(1, 3, 0, 2, 4).contiguous()  # p l b n/p e
        del x
        got = _Exchange.apply(sent.flatten(0, 1), rows, [own] * p, self.ranks.group)
        return got.permute(1, 2, 0, 3)

    def _own_rows(self, x: Tensor, rows: list[int]) -> Tensor:
        """All rows of this process's heads ``b l n/p*e`` -> own rows of all heads ``b l n*e``."""
        p, own = self.ranks.world, rows[self.ranks.rank]
        sent = x.transpose(0, 1).contiguous()
        got = _Exchange.apply(sent, [own] * p, rows, self.ranks.group)
        return got.unflatten(0, (p, own)).permute(2, 1, 0, 3).flatten(2)


class _Exchange(torch.autograd.Function):
    """Rows from every process to every process: `received` of each, `sent` to each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, received: list[int], sent: list[int], group: Any) -> Tensor:
        ctx.back = sent, received, group
        got = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(got, x, received, sent, group=group)
        return got

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(grad.contiguous(), *ctx.back), None, None, None


def ulysses(inner: Attention, mesh: DeviceMesh | None = None) -> Ulysses:
    """Attention over the processes of a mesh; by default over all that torchrun or Ray started.

    Raises FramePackError where none are.
    """
    if mesh is None:
        if not (dist.is_available() and dist.is_initialized()):
            raise FramePackError(
                "Attention ulysses needs processes that share a section. Start them with torchrun or FramePack "
                "Parallel, or choose sdpa."
            )
        kind = "cuda" if dist.get_backend() == "nccl" else "cpu"
        mesh = init_device_mesh(kind, (dist.get_world_size(),), mesh_dim_names=(DIMENSION,))
    name = DIMENSION if mesh.ndim > 1 else None
    group, rank = mesh.get_group(name), mesh.get_local_rank(name)
    return Ulysses(inner=inner, ranks=Ranks(group=group, rank=rank, world=dist.get_world_size(group)))
