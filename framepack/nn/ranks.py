"""Which rows of a section's tokens a process holds, where several processes share a section.

Dims: b batch, l tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import FramePackError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that share tokens out, and this one's number among them. Without a group this is the only one."""

    group: Any = None
    rank: int = 0
    world: int = 1

    def span(self, num: int, rank: int | None = None) -> slice:
        """Which of `num` rows a process holds, this one by default."""
        rank = self.rank if rank is None else rank
        return slice(num * rank // self.world, num * (rank + 1) // self.world)

    def count(self, num: int, rank: int | None = None) -> int:
        """How many of `num` rows a process holds."""
        span = self.span(num, rank)
        return span.stop - span.start

    def counts(self, segments: Sequence[int]) -> list[int]:
        """How many rows each process holds of several segments together."""
        return [sum(self.count(num, rank) for num in segments) for rank in range(self.world)]

    def own(self, x: Tensor) -> Tensor:
        """This process's rows of x ``b l ...``, a copy, so that the others' can be freed."""
        return x if self.world == 1 else x[:, self.span(x.shape[1])].clone()

    def whole(self, x: Tensor, num: int) -> Tensor:
        """All `num` rows ``b num ...`` from every process's own.

        Each process's loss over all rows counts once, so its gradient goes to its own rows alone.
        """
        return x if self.world == 1 else _Whole.apply(x, num, self)

    def check_heads(self, heads: int) -> None:
        """Each process attends for as many heads. Raises FramePackError where that is impossible."""
        if heads % self.world:
            fitting = [str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= 2 * self.world]
            raise FramePackError(
                f"The number of processes must divide the model's {heads} attention heads; got {self.world}. Start "
                f"{', '.join(fitting[:-1]) + ' or ' if len(fitting) > 1 else ''}{fitting[-1]}."
            )


class _Whole(torch.autograd.Function):
    """All rows from every process's own; the gradient of own rows is what this process's loss has for them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num: int, ranks: Ranks) -> Tensor:
        import torch.distributed as dist  # a process that is alone needs none of it

        ctx.span = ranks.span(num)
        longest = -(-num // ranks.world)
        padded = x.new_zeros(longest, x.shape[0], *x.shape[2:])
        padded[: x.shape[1]] = x.transpose(0, 1)
        parts = [torch.empty_like(padded) for _ in range(ranks.world)]
        dist.all_gather(parts, padded, group=ranks.group)
        return torch.cat([part[: ranks.count(num, rank)] for rank, part in enumerate(parts)]).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[:, ctx.span], None, None


ALONE = Ranks()


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many rows each process holds in a forward pass, of the keys and of the queries in attention.

    `segments` are the tokens of history, section and text; `read` those of the section, which the last block reads.
    With `past` the first segment is seen and does not look.
    """

    ranks: Ranks
    segments: tuple[int, ...]
    read: int
    past: bool = False

    @property
    def first(self) -> Shares:
        """Those of the first segment on its own, which sees only itself."""
        return Shares(ranks=self.ranks, segments=self.segments[:1], read=self.segments[0])

    @property
    def rest(self) -> Shares:
        """Those of all segments but the first, which see it too."""
        return Shares(ranks=self.ranks, segments=self.segments, read=self.read, past=True)

    @cached_property
    def keys(self) -> list[int]:
        """Rows of keys, by process. This is also the order of keys in attention."""
        return self.ranks.counts(self.segments)

    @cached_property
    def queries(self) -> list[int]:
        """Rows of queries."""
        return self.ranks.counts(self.segments[1:] if self.past else self.segments)

    @cached_property
    def read_queries(self) -> list[int]:
        """Rows of the queries that are read."""
        return self.ranks.counts([self.read])

    def in_order(self, mask: Tensor) -> Tensor:
        """A mask over all keys ``... l`` in the order in which they are exchanged: process by process."""
        if self.ranks.world == 1:
            return mask
        parts = mask.split(self.segments, -1)
        spans = (self.ranks.span(part.shape[-1], rank) for rank in range(self.ranks.world) for part in parts)
        return torch.cat([part[..., span] for part, span in zip(parts * self.ranks.world, spans, strict=True)], -1)
