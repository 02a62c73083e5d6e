"""The rules that the step cache was chosen among: published ones and its own, all at the same place, a pass's velocity.

A rule lives for one section. `velocity(key, sigma, x, forward)` gives a pass's velocity at a noise level, by the model
(`forward(options)`) or from what the rule has kept. The first step and the last are always computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn

from framepack.nn.layers import modulated_norm
from framepack.sampling.step_cache import StepCache

Forward = Callable[[dict[str, Any]], Tensor]


def change(new: Tensor, old: Tensor) -> float:
    """Relative L1 change."""
    return float((new - old).abs().mean() / old.abs().mean().clamp_min(1e-12))


@dataclass(slots=True)
class Rule:
    """What rules share. `passes` and `computed` count."""

    threshold: float
    sigmas: Sequence[float]
    dit: nn.Module
    passes: int = 0
    computed: int = 0
    key: Hashable = None
    final: bool = False
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def velocity(self, key: Hashable, sigma: float, x: Tensor, forward: Forward) -> Tensor:
        """A pass's velocity ``b c t h w``."""
        self.key, self.final, self.passes = key, sigma <= self.sigmas[-2], self.passes + 1
        return self.decided(sigma, x, forward)

    def decided(self, sigma: float, x: Tensor, forward: Forward) -> Tensor:
        """Computed, or from what is kept."""
        raise NotImplementedError


@dataclass(slots=True)
class Extrapolated(Rule):
    """This pack's."""

    cache: StepCache | None = None

    def decided(self, sigma: float, x: Tensor, forward: Forward) -> Tensor:
        """Denoised latents computed or guessed, as a velocity."""
        self.cache = self.cache or StepCache(self.threshold, self.sigmas)
        x0 = self.cache.run([self.key], sigma, lambda: x - sigma * forward({}))
        self.computed = self.cache.computed
        return (x - x0) / sigma


@dataclass(slots=True)
class EasyCache(Rule):
    """Skip while rate times the input's change stays small; the output's distance from the input is kept."""

    def decided(self, sigma: float, x: Tensor, forward: Forward) -> Tensor:
        """The rate is the output's change over the input's, between the last two computed steps."""
        s = self.kept.setdefault(self.key, {"drift": 0.0})
        if "rate" in s and not self.final:
            s["drift"] += s["rate"] * float((x - s["seen"]).abs().mean() / s["v"].abs().mean())
            s["seen"] = x
            if s["drift"] < self.threshold:
                return x + s["v"] - s["x"]
        v, self.computed = forward({}), self.computed + 1
        if "v" in s:
            s["rate"] = float((v - s["v"]).abs().mean() / (x - s["x"]).abs().mean())
        s.update(x=x, v=v, seen=x, drift=0.0)
        return v


@dataclass(slots=True)
class Blocks(Rule):
    """Rules that keep what the blocks added to the section's tokens, and see what goes into the first block."""

    base: Tensor | None = None
    skipping: bool = False
    num_read: int = 0  # tokens of the section, the last of the picture's

    def decided(self, sigma: float, x: Tensor, forward: Forward) -> Tensor:
        """Run the model with a patch on every block: the first decides, the others follow, the last adds."""
        kinds = {"double_block": self.dit.transformer_blocks, "single_block": self.dit.single_transformer_blocks}
        patches = {(kind, i): self.follow for kind, blocks in kinds.items() for i in range(len(blocks))}
        patches |= {("double_block", 0): self.first, ("single_block", len(kinds["single_block"]) - 1): self.last}
        self.num_read = prod(self.dit.grid(x))
        return forward({"patches_replace": {"dit": patches}})

    def first(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """Look, and decide whether this step is skipped."""
        done, self.base, signal = self.look(args, extra["original_block"])
        state = self.kept.setdefault(self.key, {})
        new, state["step"] = not state, state.get("step", -1) + 1
        self.skipping = not (new or self.final) and self.skips(state, signal)
        if self.skipping:
            return {"img": self.base, "txt": args["txt"]}
        state.update(seen=signal, drift=0.0, scale=1.0)
        self.computed += 1
        return done or extra["original_block"](args)

    def follow(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """A block in between."""
        return args if self.skipping else extra["original_block"](args)

    def last(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """Add the kept residual to the section's tokens, or keep the new one."""
        num = self.base.shape[1]
        section, state = slice(num - self.num_read, num), self.kept[self.key]
        if self.skipping:
            img = args["img"].clone()
            img[:, section] = self.base[:, section] + state["rest"]
            return {"img": img}
        made = extra["original_block"](args)
        state["rest"] = made["img"][:, section] - self.base[:, section]
        return made

    def look(self, args: dict[str, Any], block: Callable) -> tuple[dict[str, Any] | None, Tensor, Tensor | None]:
        """The first block's output if it ran, the tokens that the residual is added to, and the signal."""
        return None, args["img"], None

    def skips(self, state: dict[str, Any], signal: Tensor) -> bool:
        """Is the change summed over the skipped steps small enough?"""
        state["drift"] += change(signal, state["seen"])
        state["seen"] = signal
        return state["drift"] < self.threshold


@dataclass(slots=True)
class TeaCache(Blocks):
    """Accumulated change of the first block's modulated input, without calibration."""

    def look(self, args: dict[str, Any], block: Callable) -> tuple[None, Tensor, Tensor]:
        """The modulated input."""
        shift, scale, *_ = args["vec"][0]
        return None, args["img"], modulated_norm(args["img"], shift, scale)


@dataclass(slots=True)
class FirstBlock(Blocks):
    """Change of the first block's residual since the last computed step."""

    def look(self, args: dict[str, Any], block: Callable) -> tuple[dict[str, Any], Tensor, Tensor]:
        """The residual."""
        done = block(args)
        return done, done["img"], done["img"] - args["img"]

    def skips(self, state: dict[str, Any], signal: Tensor) -> bool:
        """Against the last computed step, not the last one."""
        return change(signal, state["seen"]) < self.threshold


@dataclass(slots=True)
class FirstBlockSummed(FirstBlock):
    """The same change, summed from step to step."""

    skips = Blocks.skips


@dataclass(slots=True)
class MagCache(Blocks):
    """How much smaller the residual has become, by ratios measured beforehand, the mean over tokens."""

    ratios: Sequence[float] = ()

    def skips(self, state: dict[str, Any], signal: Tensor | None) -> bool:
        """Sum the distance of the ratios' product from 1."""
        state["scale"] *= self.ratios[state["step"]]
        state["drift"] += abs(1 - state["scale"])
        return state["drift"] < self.threshold


@dataclass(slots=True)
class Plain(Blocks):
    """No cache; the residuals' mean norms, for MagCache."""

    norms: list[float] = field(default_factory=list)

    def skips(self, state: dict[str, Any], signal: Tensor | None) -> bool:
        """Never; the residual of the step before is there."""
        self.norms.append(float(state["rest"].norm(dim=-1).mean()))
        return False
