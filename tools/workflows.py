"""Workflows from a description, in both formats; `tools.shipped` describes those that come with the pack.

The real host tells each node's inputs and outputs. `workflows/NAME.json` is what the page opens (format 0.4),
`workflows/api/NAME.json` what POST /prompt takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .pages import Box, boxes, note, place

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SCALE, OFFSET = 0.72, [90, 190]  # how a workflow opens: nothing below 70 %

Info = dict[str, Any]


@dataclass(slots=True)
class Node:
    """A node on its way into a workflow; `values` are literals or (Node, output) links."""

    id: int
    kind: str
    values: dict[str, Any]
    title: str | None = None
    models: list[dict[str, str]] = field(default_factory=list)

    def __getitem__(self, output: int) -> tuple[Node, int]:
        return self, output

    @property
    def sources(self) -> Iterable[tuple[str, Node, int]]:
        """Its linked inputs: name, node, output."""
        return [(name, *value[:2]) for name, value in self.values.items() if isinstance(value, tuple)]


@dataclass(slots=True)
class Graph:
    """A workflow being described."""

    name: str
    note: str
    nodes: list[Node] = field(default_factory=list)
    asked: list[tuple[Node, str]] = field(default_factory=list)  # inputs that the page asks for in app mode

    def ask(self, node: Node, *names: str) -> Node:
        """Show inputs of a node in app mode, where the host has it."""
        self.asked += [(node, name) for name in names]
        return node

    def add(self, kind: str, *, title: str | None = None, models: list | None = None, **values: Any) -> Node:
        """Add a node; a Node as a value is its first output."""
        linked = {name: value[0] if isinstance(value, Node) else value for name, value in values.items()}
        node = Node(len(self.nodes) + 1, kind, linked, title, models or [])
        self.nodes.append(node)
        return node

    def api(self) -> dict[str, Any]:
        """What POST /prompt takes."""
        return {
            str(node.id): {
                "class_type": node.kind,
                "inputs": {n: [str(v[0].id), v[1]] if isinstance(v, tuple) else v for n, v in node.values.items()},
                "_meta": {"title": node.title or node.kind},
            }
            for node in self.nodes
        }

    def page(self, info: Info) -> dict[str, Any]:
        """What the page opens."""
        links: list[list[Any]] = []
        places = place([(node.id, node.kind) for node in self.nodes])
        drawn = [draw(node, info[node.kind], places[node.id], links) for node in self.nodes]
        for link in links:  # number, from, output, to, input, type
            drawn[link[1] - 1]["outputs"][link[2]]["links"].append(link[0])
        last = len(self.nodes) + 1
        return {
            "last_node_id": last,
            "last_link_id": len(links),
            "nodes": [*drawn, note(last, self.note, places, {node.id: node.kind for node in self.nodes})],
            "links": links,
            "groups": boxes({node.id: node.kind for node in self.nodes}, places),
            "config": {},
            "extra": {"ds": {"scale": SCALE, "offset": OFFSET}, "linearData": self._app()},
            "version": 0.4,
        }

    def _app(self) -> dict[str, Any]:
        """What app mode asks for and shows; hosts without it ignore this."""
        saved = [node.id for node in self.nodes if node.kind in ("SaveVideo", "SaveImage")]
        return {"inputs": [[node.id, name] for node, name in self.asked], "outputs": saved}


def inputs_of(info: Info) -> dict[str, tuple[Any, Info]]:
    """A node's inputs in the page's order: name to type and options."""
    found = {}
    for part in ("required", "optional"):
        for name, spec in info["input"].get(part, {}).items():
            found[name] = (spec[0], spec[1] if len(spec) > 1 else {})
    return found


def is_widget(kind: Any, options: Info) -> bool:
    """Does an input have a field on the node?"""
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def draw(node: Node, info: Info, place: Box, links: list[list[Any]]) -> dict[str, Any]:
    """One node as the page keeps it; appends its incoming links."""
    sockets, fields = [], []
    known = inputs_of(info)
    if strange := node.values.keys() - known.keys():
        raise ValueError(f"{node.kind} has no input {min(strange)!r}; it has {', '.join(known)}")
    for name, (kind, options) in known.items():
        value, link = node.values.get(name), None
        if is_widget(kind, options):
            fields += values_of(node, name, kind, options)
            if not isinstance(value, tuple):
                continue
        if isinstance(value, tuple):
            link = len(links) + 1
            links.append([link, value[0].id, value[1], node.id, len(sockets), kind])
        widget = {"widget": {"name": name}} if is_widget(kind, options) else {}
        sockets.append({"name": name, "type": kind, "link": link} | widget)
    outputs = zip(info["output_name"], info["output"], strict=True)
    properties: dict[str, Any] = {"Node name for S&R": node.kind}
    return {
        "id": node.id,
        "type": node.kind,
        "pos": [place.x, place.y],
        "size": [place.width, place.height],
        "flags": {},
        "order": node.id - 1,
        "mode": 0,
        "inputs": sockets,
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in outputs],
        "properties": properties | ({"models": node.models} if node.models else {}),
        "widgets_values": fields,
    } | ({"title": node.title} if node.title else {})


def values_of(node: Node, name: str, kind: Any, options: Info) -> list[Any]:
    """The values of an input's fields: its own, and those that the page adds to it."""
    choices = kind if isinstance(kind, list) else options.get("options", [])
    default = options.get("default", choices[0] if choices else None)
    value = node.values.get(name, default)
    values = [(*value, default)[2] if isinstance(value, tuple) else value]  # a link may say what stands without it
    if options.get("control_after_generate"):
        values.append("fixed")
    if options.get("image_upload"):
        values.append("image")
    return values
