"""The built-in text encoder as the host's CLIP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sd
import torch
from torch import Tensor, nn

from ...framepack.checkpoints.files import Checkpoint, identity
from ...framepack.errors import CheckpointError
from ...framepack.shapes import builtin
from ...framepack.shapes.text import TextEncoder, Tokenizer


class HostedTextEncoder(TextEncoder):
    """The built-in text encoder as the host's CLIP calls it."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: Any):
        (num_words, width), (num_tokens, _) = shapes["words.weight"], shapes["places.weight"]
        super().__init__(num_words - 2, num_tokens, width)
        self.to(device=device, dtype=dtype)
        self.dtypes = {dtype}

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """The host's options for layers and projections; there are none here."""

    def reset_clip_options(self) -> None:
        """See set_clip_options."""

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[Tensor, Tensor]:
        """Tokens with weights -> context ``1 l d`` and pooled ``1 d``."""
        numbers = [[number for number, _ in row] for row in tokens["words"]]
        with torch.no_grad():
            return self(torch.tensor(numbers, device=self.words.weight.device))


class HostedTokenizer:
    """The tokenizer under the names that the host calls."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list]:
        """Every word has weight 1."""
        return {"words": [[(number, 1.0) for number in self.tokenizer(text)]]}

    def state_dict(self) -> dict[str, Any]:
        """Nothing that a file would need."""
        return {}


class _ClipTarget:
    """What the host's CLIP is made from."""

    def __init__(self, clip: Callable[..., nn.Module], tokenizer: Callable[..., HostedTokenizer]):
        self.clip, self.tokenizer, self.params = clip, tokenizer, {}


def load_text_encoder(path: str) -> comfy.sd.CLIP:
    """CLIP from the built-in text encoder's file. Raises CheckpointError for another file, or a broken one."""
    checkpoint = Checkpoint.open(path)
    if "framepack.vocabulary" not in checkpoint.metadata:
        raise CheckpointError(
            f"{checkpoint.name} has no vocabulary, so it is not the built-in text encoder. Load others with "
            "DualCLIPLoader (type hunyuan_video)."
        )
    shapes = dict(checkpoint.shapes)
    try:
        tokenizer = HostedTokenizer(builtin.read_tokenizer(dict(checkpoint.metadata)))
        with torch.device("meta"):
            expected = {key: tuple(v.shape) for key, v in TextEncoder.from_shapes(shapes).state_dict().items()}
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as fault:
        raise CheckpointError(
            f"{checkpoint.name}: its vocabulary or its shapes are no text encoder's ({fault!r}). Get it again."
        ) from fault
    if wrong := sorted(key for key in shapes.keys() | expected.keys() if shapes.get(key) != expected.get(key)):
        got, wanted = shapes.get(wrong[0], "nothing"), expected.get(wrong[0], "nothing")
        raise CheckpointError(f"{checkpoint.name}: {wrong[0]} must be {wanted}; got {got}. Get the file again.")
    weights = checkpoint.tensors()
    identity(checkpoint.name, weights)
    weights = {key: tensor.float() for key, tensor in weights.items()}

    def clip(dtype: torch.dtype, device: Any, model_options: Any) -> HostedTextEncoder:
        return HostedTextEncoder(shapes, dtype, device)

    target = _ClipTarget(clip, lambda **_: tokenizer)
    out = comfy.sd.CLIP(
        target, model_options={"dtype": torch.float32}, parameters=sum(v.numel() for v in weights.values())
    )
    out.load_sd(weights, full_model=True)
    return out
