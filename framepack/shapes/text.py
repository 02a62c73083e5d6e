"""The built-in model's text encoder: words to tokens, one small transformer, context and pooled output.

Dims: b batch, l words, d width. Every prompt is padded to the same number of words and the padding is seen, as
in training, so no mask is needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)
PADDING, UNKNOWN = 0, 1


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Lower-case words to numbers; 0 pads, 1 stands for a word that was not in training."""

    words: tuple[str, ...]
    num_tokens: int = 20

    def __call__(self, prompt: str) -> list[int]:
        """Numbers of the prompt's words, always `num_tokens` of them; what is too much is cut and logged."""
        number = {word: i + 2 for i, word in enumerate(self.words)}
        found = re.findall(r"[^\W\d_]+", prompt.lower())
        if len(found) > self.num_tokens:
            log.warning("The prompt has %d words; the built-in model reads %d.", len(found), self.num_tokens)
        tokens = [number.get(word, UNKNOWN) for word in found[: self.num_tokens]]
        return tokens + [PADDING] * (self.num_tokens - len(tokens))


class TextEncoder(nn.Module):
    """One pre-norm transformer block over word embeddings."""

    def __init__(self, num_words: int, num_tokens: int = 20, width: int = 128, heads: int = 4, operations: Any = nn):
        super().__init__()
        self.heads = heads
        self.words = operations.Embedding(num_words + 2, width)
        self.places = operations.Embedding(num_tokens, width)
        self.norm_attention = operations.LayerNorm(width)
        self.qkv = operations.Linear(width, 3 * width)
        self.attention_out = operations.Linear(width, width)
        self.norm_mlp = operations.LayerNorm(width)
        self.mlp_in = operations.Linear(width, 2 * width)
        self.mlp_out = operations.Linear(2 * width, width)
        self.norm_out = operations.LayerNorm(width)
        self.pool = operations.Linear(width, width)

    @classmethod
    def from_shapes(cls, shapes: dict[str, Sequence[int]], operations: Any = nn) -> TextEncoder:
        """The encoder that fits a checkpoint, from its tensors' shapes."""
        (num_words, width), (num_tokens, _) = shapes["words.weight"], shapes["places.weight"]
        return cls(num_words - 2, num_tokens, width, operations=operations)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens ``b l`` -> context ``b l d`` and pooled ``b d``."""
        b, l = tokens.shape  # noqa: E741
        x = self.words(tokens) + self.places(torch.arange(l, device=tokens.device))
        q, k, v = self.qkv(self.norm_attention(x)).view(b, l, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # b n l e
        x = x + self.attention_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, l, -1))
        x = x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))
        x = self.norm_out(x)
        return x, self.pool(x.mean(1))
