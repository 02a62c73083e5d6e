"""What is kept over steps and sections changes no result, whatever changes between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framepack.models.hunyuan import HunyuanDiT
from framepack.models.memo import KEY, MOST, Constants, Memo, Store
from framepack.nn.layers import Modulation
from framepack.packing.history import ContextGroup
from framepack.units import Kernel
from tests.backbones import SMALL, Small

pytestmark = pytest.mark.numeric

MODELS = {small.name: small.model() for small in SMALL}
each = pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)
LEVELS = (900.0, 700.0, 300.0)


def inputs_of(small: Small, seed: int = 0, b: int = 1) -> dict[str, Any]:
    """Everything that a forward takes."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    c = small.spec.in_channels
    groups = [((2, 4, 4), (0, 1), 2), ((1, 2, 2), (2,), 1)]
    history = [
        ContextGroup(kernel=Kernel(*kernel), latents=random(b, c, n, 8, 8), positions=places)
        for kernel, places, n in groups
    ]
    found = {"x": random(b, 16, 3, 8, 8), "timestep": torch.full((b,), 700.0), "context": random(b, 5, 24)}
    return {**found, "positions": [3, 4, 5], "history": history, **small.extra(b)}


@torch.no_grad()
def both(model: nn.Module, constants: Constants, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """With what is kept, and without."""
    return model(**inputs, transformer_options={KEY: constants}), model(**inputs)


def latents(change: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda inputs: change(inputs["history"][0].latents)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda i: None,
    "the latents": lambda i: i["x"].mul_(0.5),
    "a level of the run": lambda i: i["timestep"].fill_(300.0),
    "a level between": lambda i: i["timestep"].fill_(512.0),
    "the history in place": latents(lambda x: x.mul_(1.5)),
    "one value of it": latents(lambda x: x[0, 0, 0, 0, 0].add_(9)),
    "its positions": lambda i: i["history"].__setitem__(0, replace(i["history"][0], positions=(7, 8))),
    "its kernel": lambda i: i["history"].__setitem__(0, replace(i["history"][0], kernel=Kernel(1, 2, 2))),
    "its tail": lambda i: i["history"].__setitem__(0, replace(i["history"][0], tail="ta")),
    "its length": lambda i: i["history"].pop(),
    "the section's positions": lambda i: i.update(positions=[9, 10, 11]),
    "the words in place": lambda i: i["context"][:, 1].mul_(-1),
    "fewer words": lambda i: i.update(context=i["context"][:, :3]),
}
ITS_OWN = {
    "the pooled text in place": lambda i: i["y"].mul_(-2),
    "the guidance": lambda i: i.update(guidance=torch.full_like(i["guidance"], 1000.0)),
    "a mask": lambda i: i.update(attention_mask=torch.tensor([[1, 1, 0]])),
    "another mask": lambda i: i.update(attention_mask=torch.tensor([[1, 0, 0]])),
}


@each
def test_no_change_between_steps_is_missed(small: Small):
    model, constants, inputs = MODELS[small.name], Constants(Store(), LEVELS), inputs_of(small)
    changes = CHANGES | (ITS_OWN if small.name == "hunyuan" else {})
    last = None
    for name, change in changes.items():
        change(inputs)
        for _ in range(2):  # made, then found
            kept, plain = both(model, constants, inputs)
            torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert last is None or not torch.equal(plain, last)
        last = plain


@each
def test_two_prompts_together_and_one_by_one(small: Small):
    model, constants = MODELS[small.name], Constants(Store(), LEVELS)
    for b, seed in ((2, 0), (1, 1), (1, 2), (2, 0), (1, 1)):
        kept, plain = both(model, constants, inputs_of(small, seed, b))
        torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4)


def hunyuan() -> tuple[HunyuanDiT, dict[str, Any]]:
    small = SMALL[0]
    return small.model(), inputs_of(small)


def counted(model: HunyuanDiT) -> dict[str, int]:
    """Calls of what should be called seldom, counted from now on."""
    calls = {"modulation": 0, "refiner": 0, "history": 0}

    def count(name: str) -> Callable:
        return lambda *_: calls.__setitem__(name, calls[name] + 1)

    for layer in model.modulations:
        layer.linear.register_forward_hook(count("modulation"))
    model.context_embedder.register_forward_hook(count("refiner"))
    for layer in model.clean_x_embedder.children():
        layer.register_forward_hook(count("history"))
    return calls


@torch.no_grad()
def test_each_layer_is_asked_once_for_all_levels_and_sections():
    model, inputs = hunyuan()
    calls, store = counted(model), Store()
    layers = sum(isinstance(m, Modulation) for m in model.modules()) - 1  # but for the refiner's
    for section in range(3):
        inputs["history"][0].latents.add_(section)
        for level in LEVELS:
            inputs["timestep"].fill_(level)
            model(**inputs, transformer_options={KEY: Constants(store, LEVELS)})
            assert calls["modulation"] == layers
    assert calls == {"modulation": layers, "refiner": len(LEVELS), "history": 2 * 3}


def test_other_weights_are_other_results():
    model, inputs = hunyuan()
    store = Store()
    both(model, Constants(store, LEVELS, "before"), inputs)
    model.transformer_blocks[0].norm1.linear.weight.mul_(2)
    kept, plain = both(model, Constants(store, LEVELS, "after"), inputs)
    torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4)


def test_levels_that_differ_within_a_batch_and_gradients_are_computed_plainly():
    small = SMALL[0]
    model, constants, inputs = small.model(), Constants(Store(), LEVELS), inputs_of(small, b=2)
    both(model, constants, inputs)
    inputs["timestep"] = torch.tensor([900.0, 300.0])
    assert torch.equal(*both(model, constants, inputs))
    with torch.enable_grad():
        inputs["y"] = inputs["y"].requires_grad_()
        model(**inputs, transformer_options={KEY: constants}).sum().backward()
    assert inputs["y"].grad.abs().sum() > 0


def test_a_memo_forgets_the_oldest_and_never_takes_nan_for_the_same():
    memo, made = Memo(MOST), []

    def get(value: float) -> None:
        memo.get("key", (torch.tensor([value]), None), lambda: made.append(value))

    for value in (*range(MOST), 0, MOST, 0, 1, float("nan"), float("nan")):
        get(value)
    assert made[: MOST + 2] == [*range(MOST), MOST, 1]
    assert len(made) == MOST + 4
    assert len(memo.held) == MOST


def test_in_bfloat16_the_table_is_equal_to_rounding():
    small = SMALL[0]
    model, inputs = small.model().bfloat16(), inputs_of(small)
    half = {
        k: v.bfloat16() if isinstance(v, Tensor) and k not in ("timestep", "guidance") else v for k, v in inputs.items()
    }
    half["history"] = [replace(g, latents=g.latents.bfloat16()) for g in inputs["history"]]
    kept, plain = both(model, Constants(Store(), LEVELS), half)
    assert (kept - plain).float().norm() / plain.float().norm() < 2e-2
