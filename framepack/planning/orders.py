"""The orders of generation (paper section 3.3) over one span of a video. A new one is a function and an entry here.

Ranges are latent frames, half open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from ..schedule.grammar import Schedule
from ..units import TRAINED_POSITIONS
from .gaps import Gap
from .layout import Layout
from .section import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Frames [start, stop) to make. [first, start) and [stop, last) exist already; frame -1 is a zero latent."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def past(self) -> range:
        """The frames that exist before it."""
        return range(self.first, self.start)

    @property
    def future(self) -> range:
        """The frames that exist after it."""
        return range(self.stop, self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order of generation.

    `sections` yields a span's sections in order of generation. `gap` is its own gap rule, `trained` the positions
    that released models of this order were trained on. With `needs_future` it needs a schedule that sees the future.
    """

    sections: Callable[[Layout, Span], Iterator[Section]]
    gap: str = "pinned"
    trained: range = TRAINED_POSITIONS["forward"]
    needs_future: bool = False

    @property
    def rule(self) -> Gap:
        """Its own gap rule, kept within the positions that models were trained on where possible."""
        return replace(Gap.parse(self.gap), limit=self.trained.stop)

    def beyond_training(self, highest: int) -> str | None:
        """A warning where a plan's highest position is above those that released models were trained on."""
        if highest in self.trained:
            return None
        return (
            f"Positions reach {highest}; the released models of this order were trained on 0 to {self.trained[-1]}, so "
            "expect lower quality from them."
        )


def inverted(layout: Layout, span: Span) -> Iterator[Section]:
    """The last section first, each towards what is known on the left (figure 2c)."""
    edges = [span.start, *reversed(range(span.stop, span.start, -layout.schedule.generate))]
    for start, stop in reversed(list(pairwise(edges))):
        yield layout.section((start, stop), span.past, range(stop, span.last), first=stop == span.stop)


def forward(layout: Layout, span: Span) -> Iterator[Section]:
    """In temporal order (figure 2a); an endpoint's schedule looks ahead at what is known on the right."""
    yield from _steps(layout, span, first=True)


def _steps(layout: Layout, span: Span, first: bool) -> Iterator[Section]:
    for start in range(span.start, span.stop, layout.schedule.generate):
        made = (start, min(start + layout.schedule.generate, span.stop))
        yield layout.section(made, range(span.first, start), span.future, first=first and start == span.start)


def endpoint(layout: Layout, span: Span) -> Iterator[Section]:
    """Beginning and ending at once, then what lies between, forward (figure 2b); forward if the ending exists."""
    if span.future:
        yield from forward(layout, span)
        return
    middle = min(span.start + layout.schedule.generate, span.stop)
    ending = max(middle, span.stop - layout.schedule.generate)
    both = (ending, span.stop) if ending < span.stop else None
    yield layout.section((span.start, middle), span.past, range(ending, ending), first=True, ending=both)
    if middle < ending:
        yield from _steps(layout, Span(start=middle, stop=ending, first=span.first, last=span.stop), first=False)


def halved(layout: Layout, span: Span) -> Iterator[Section]:
    """The middle section first, then both halves, each on its own; the last ones in the schedule's own order."""
    generate = layout.schedule.generate
    count = -(-(span.stop - span.start) // generate)
    if count < 3:
        yield from order_of(layout.schedule).sections(layout, span)
        return
    start = span.start + count // 2 * generate
    stop = start + generate
    yield layout.section((start, stop), span.past, span.future, first=True)
    yield from halved(layout, replace(span, stop=start, last=stop))
    yield from halved(layout, replace(span, start=stop, first=start))


ORDERS = {
    "vanilla": Order(sections=forward),
    "endpoint": Order(sections=endpoint, gap="capped:3", trained=TRAINED_POSITIONS["inverted"]),
    "inverted": Order(sections=inverted, gap="released", trained=TRAINED_POSITIONS["inverted"]),
    "halved": Order(sections=halved, needs_future=True),
}


def order_of(schedule: Schedule) -> Order:
    """The order that a schedule's shape implies."""
    return ORDERS[schedule.order]
