"""What a video is called in the section store: its prompt and its start image, as the workflow states them."""

from __future__ import annotations

from typing import Any

MAX_PROMPT = 60  # characters
MAX_NODES = 32  # that are looked at behind a link


def title_of(dynprompt: Any, positive: Any, start: Any) -> str:
    """A title from the links to the prompt and to the start latent; empty where the workflow states neither."""
    prompt, image = _stated(dynprompt, positive, "text"), _stated(dynprompt, start, "image")
    shown = prompt if len(prompt) <= MAX_PROMPT else prompt[: MAX_PROMPT - 1].rstrip() + "…"
    return ", ".join(filter(None, (shown, image)))


def _stated(dynprompt: Any, link: Any, name: str) -> str:
    """The first text that an input of that name states, behind a link; the nearest node first."""
    queue, seen = [link], set()
    while queue and len(seen) < MAX_NODES:
        link = queue.pop(0)
        if not (isinstance(link, list) and len(link) == 2) or link[0] in seen:
            continue
        seen.add(link[0])
        inputs = dynprompt.get_node(link[0])["inputs"]
        if isinstance(inputs.get(name), str):
            return " ".join(inputs[name].split())
        queue += inputs.values()
    return ""
