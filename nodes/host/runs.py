"""What the nodes of one plan share while it is sampled.

The nodes of a plan's sections know only their own slice, so that the host's cache keeps them when the plan changes
elsewhere. What concerns the whole run is kept here, by the node of the page that shows it, for the latest runs alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

from ...framepack.planning.plan import Section
from .keeping import section_store
from .previews import Previews

MAX_RUNS = 16  # a run holds up to 3 MB of pictures
TEXT_EVERY = 0.5  # seconds


@dataclass(slots=True)
class Run:
    """A plan's sampling: how many sections it has, its largest with its latent grid, and how long a step takes.

    `title` is the video's, for the section store; `sampled` are the sections that were, `seams` what was said of locks.
    """

    sections: int = 1
    largest: tuple[Section, tuple[int, int]] | None = None
    step_seconds: float = 0.0
    previews: Previews = field(default_factory=Previews)
    shown: float = 0.0  # when a line of text was last shown
    title: str = ""
    sampled: set[int] = field(default_factory=set)
    seams: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """What became of its sections."""
        num = len(self.sampled)
        return ". ".join([f"{self.sections - num} of {self.sections} sections reused, {num} sampled", *self.seams])

    def say(self, text: str, node: str, final: bool = False) -> None:
        """Show a line of text on a node, where the host can; one that is not final at most twice a second."""
        now = time.monotonic()
        if not (final or now - self.shown > TEXT_EVERY):
            return
        self.shown = now
        from server import PromptServer

        server = PromptServer.instance
        if node and server.client_id is not None:  # without an id the text goes to every page
            server.send_progress_text(text, node, server.client_id)


_runs: dict[str, Run] = {}  # the latest last


def begin_run(sections: int, largest: tuple[Section, tuple[int, int]], title: str = "") -> None:
    """Children of the node that executes now are about to sample a plan of so many sections."""
    _add(shown_on(), Run(sections=sections, largest=largest, title=title))
    if (store := section_store()) is not None:
        store.begin_run()


def current_run() -> Run:
    """The run of the node that executes now."""
    node = shown_on()
    return _add(node, _runs.get(node) or Run())


def _add(node: str, run: Run) -> Run:
    _runs.pop(node, None)
    _runs[node] = run
    while len(_runs) > MAX_RUNS:
        del _runs[next(iter(_runs))]
    return run


def say(text: str, final: bool = False) -> None:
    """Show a line of text on the node that executes now, as Run.say does."""
    current_run().say(text, shown_on(), final)


def summary() -> str:
    """What became of the sections of the node that executes now."""
    return current_run().summary


def shown_on() -> str:
    """The node on the page that shows what the executing node does; empty where the host does not tell."""
    context, state = get_executing_context(), get_progress_state()
    return "" if context is None else str(state.dynprompt.get_display_node_id(context.node_id))


def video_index() -> int:
    """Which video of several the executing node works on: its place in the host's list."""
    context = get_executing_context()
    return 0 if context is None else context.list_index or 0
