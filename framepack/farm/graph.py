"""Which sections of a plan can be sampled at the same time, and in which order they are best begun."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ..planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The needs of each section, by number, and its cost: the same for all, or seconds."""

    needs: tuple[tuple[int, ...], ...]
    costs: tuple[float, ...]

    @classmethod
    def of(cls, plan: Plan, costs: Sequence[float] | None = None) -> Graph:
        """A plan's; every section costs 1 where nothing is known."""
        needs = tuple(tuple(section.needs) for section in plan.sections)
        return cls(needs=needs, costs=tuple(costs or [1.0] * len(needs)))

    @cached_property
    def remaining(self) -> tuple[float, ...]:
        """The longest way from the beginning of each section to the end of the video."""
        after = [0.0] * len(self.needs)
        for index in range(len(self.needs) - 1, -1, -1):
            after[index] += self.costs[index]
            for need in self.needs[index]:
                after[need] = max(after[need], after[index])
        return tuple(after)

    @property
    def critical(self) -> float:
        """The length of the critical path: no number of workers is faster."""
        return max(self.remaining)

    @property
    def total(self) -> float:
        """The cost of all sections."""
        return sum(self.costs)

    def ready(self, done: Collection[int], taken: Collection[int] = ()) -> list[int]:
        """Sections whose needs are met and that no one has taken; the longest way to the end first."""
        free = (i for i in range(len(self.needs)) if i not in done and i not in taken)
        met = [i for i in free if all(need in done for need in self.needs[i])]
        return sorted(met, key=lambda i: (-self.remaining[i], i))

    def widest(self) -> int:
        """The most sections that can be sampled at the same time, if each begins as soon as it can."""
        starts: list[float] = []
        for needs in self.needs:
            starts.append(max((starts[need] + self.costs[need] for need in needs), default=0.0))
        events = sorted([(s, 1) for s in starts] + [(s + c, -1) for s, c in zip(starts, self.costs, strict=True)])
        return max(accumulate(change for _, change in events))
