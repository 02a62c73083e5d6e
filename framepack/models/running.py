"""How blocks are called in a forward pass: in runs of rows, the last one for the section's tokens alone, and through
the host's replacements.

Dims: b batch, l tokens, d width, n heads, e head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.rope import Phases
from ..nn.rows import Rows, Segment, at_once, in_runs

EVERY = slice(None)
Key = tuple[str, int]  # a block as the host's patches name it: double_block or single_block, and its number


class Past:
    """Keys and values ``b l n e`` of a history that sees only itself, in one block: the same in every step."""

    __slots__ = ("keys", "values")
    keys: Tensor
    values: Tensor


class Run(NamedTuple):
    """What a block is given beside tokens and modulation.

    `attention` takes q, k, v ``b n l e`` and gives ``b l n*e``; `phases` are those of the block's tokens ``1 l 2 e``;
    `rows` calls functions of single tokens; `read` are the tokens whose results count, all but in the last block.
    `past` is what the tokens see beside themselves; `keeps` is filled with their own keys and values.
    `across` attends to the tokens of all processes that share a section, where there are several.
    """

    attention: Callable[..., Tensor]
    phases: Phases | None = None
    rows: Rows = at_once
    read: slice = EVERY
    past: Past | None = None
    keeps: Past | None = None
    across: Callable[..., Tensor] | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q ``b l n e``, k and v ``b l' n e`` -> ``b l n*e``."""
        return self.attention(*(x.transpose(1, 2) for x in (q, k, v)))

    def self_attention(self, *segments: Segment) -> Tensor:
        """What the tokens that are read see of all: ``b l n*e``. The segments make q, k and v, each ``b l n e``."""
        q, k, v = self.rows(*segments)
        if self.keeps is not None:
            self.keeps.keys, self.keeps.values = k, v
        if self.past is not None:
            k, v = torch.cat([self.past.keys, k], 1), torch.cat([self.past.values, v], 1)
        if self.across is None:
            return self.attend(q[:, self.read], k, v)
        own = [x.transpose(1, 2) for x in (v, k, q[:, self.read])]
        del q, k, v  # each is freed as soon as it has been exchanged
        return self.across(own, reads=self.read != EVERY)


class Blocks:
    """Calls blocks by keyword and gives their tokens.

    Of the block `last` only the tokens of `section` are read; `takes_runs` tells which blocks may be called in runs.
    """

    def __init__(
        self, run: Run, options: Mapping[str, Any], takes_runs: Callable[[nn.Module], bool], last: Key, section: slice
    ):
        self.run, self.options, self.takes_runs = run, options, takes_runs
        self.last, self.section = last, section
        self.replaced: Mapping[Key, Callable] = options.get("patches_replace", {}).get("dit", {})

    def __call__(self, kind: str, index: int, block: nn.Module, past: Past | None = None, **tokens: Any) -> Any:
        """The block's `img`, or `img` and `txt` of a block with `two_streams`; `past` is what it sees beside them."""
        key, run = (kind, index), self.run._replace(past=past)
        if self.takes_runs(block):
            run = run._replace(rows=in_runs)
        if key not in self.replaced:
            return block(**tokens, run=run._replace(read=self.section if key == self.last else EVERY))

        def original(given: Mapping[str, Any]) -> dict[str, Tensor]:
            made = block(**{name: given.get(name, own) for name, own in tokens.items()}, run=run)
            return {"img": made} if isinstance(made, Tensor) else dict(zip(("img", "txt"), made, strict=True))

        extra = {"original_block": original, "transformer_options": self.options}
        made = self.replaced[key]({**tokens, "pe": run.phases}, extra)
        return (made["img"], made["txt"]) if getattr(block, "two_streams", False) else made["img"]

    def kept(self, block: nn.Module, **tokens: Any) -> tuple[Any, Past]:
        """What a block makes of tokens that see only themselves, and their keys and values; nothing replaces it."""
        past = Past()
        rows = in_runs if self.takes_runs(block) else at_once
        return block(**tokens, run=self.run._replace(keeps=past, rows=rows)), past

    def read(self, img: Tensor) -> Tensor:
        """The section's tokens ``b l d`` of what the last block made."""
        num = self.section.stop - self.section.start
        return img if img.shape[1] == num else img[:, self.section]
