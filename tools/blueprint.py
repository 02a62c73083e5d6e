"""A workflow's middle as one node: the subgraph blueprint that the page offers in its node search.

Its inputs are the image and the fields that an artist changes; its output is the VIDEO.
"""

from __future__ import annotations

import uuid
from typing import Any

from .pages import boxes, place
from .workflows import Graph, Info, Node, draw

INPUT, OUTPUT = -10, -20  # the page's ids for a subgraph's own ends
SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "framepack-nodes")
OUTSIDE = Node(INPUT, "outside", {})  # a value that comes from it is an input of the subgraph
WIDTH, ROW = 400, 40


def blueprint(graph: Graph, info: Info, inputs: list[tuple[str, str]], output: tuple[Node, str]) -> dict[str, Any]:
    """The file of a blueprint: `inputs` are names and types of OUTSIDE's outputs, `output` a node and its type."""
    key = str(uuid.uuid5(SPACE, graph.name))
    node = {
        "id": len(graph.nodes) + 1,
        "type": key,
        "pos": [0, 0],
        "size": [WIDTH, 100 + ROW * len(inputs)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [_socket(name, kind) for name, kind in inputs],
        "outputs": [{"name": output[1], "type": output[1], "links": []}],
        "properties": {"proxyWidgets": []},
        "widgets_values": [],
        "title": graph.name,
    }
    return {
        "id": str(uuid.uuid5(SPACE, f"{graph.name} file")),
        "revision": 0,
        "last_node_id": node["id"],
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [_subgraph(key, graph, info, inputs, output)]},
        "config": {},
        "extra": {"BlueprintDescription": graph.note},
        "version": 0.4,
    }


def _socket(name: str, kind: str) -> dict[str, Any]:
    field = {"widget": {"name": name}} if kind in ("INT", "FLOAT", "STRING", "COMBO") else {}
    return {"name": name, "type": kind, "link": None} | field


def _subgraph(
    key: str, graph: Graph, info: Info, inputs: list[tuple[str, str]], output: tuple[Node, str]
) -> dict[str, Any]:
    links: list[list[Any]] = []
    kinds = {node.id: node.kind for node in graph.nodes}
    places = place(list(kinds.items()))
    drawn = {node.id: draw(node, info[node.kind], places[node.id], links) for node in graph.nodes}
    last = [len(links) + 1, output[0].id, 0, OUTPUT, 0, output[1]]
    for link in (*links, last):
        if link[1] != INPUT:
            drawn[link[1]]["outputs"][link[2]]["links"].append(link[0])
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    ends = [[link[0] for link in links if link[1:3] == [INPUT, i]] for i in range(len(inputs))]
    right = max(box.x + box.width for box in places.values())
    return {
        "id": key,
        "version": 1,
        "state": {"lastGroupId": 5, "lastNodeId": len(graph.nodes) + 1, "lastLinkId": last[0], "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": graph.name,
        "inputNode": {"id": INPUT, "bounding": [-220, 60, 160, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT, "bounding": [right + 60, 60, 120, 60]},
        "inputs": [
            {"id": str(uuid.uuid5(SPACE, f"{key} {name}")), "name": name, "type": kind, "linkIds": ids}
            for (name, kind), ids in zip(inputs, ends, strict=True)
        ],
        "outputs": [
            {"id": str(uuid.uuid5(SPACE, f"{key} out")), "name": output[1], "type": output[1], "linkIds": [last[0]]}
        ],
        "widgets": [],
        "nodes": list(drawn.values()),
        "groups": boxes(kinds, places),
        "links": [dict(zip(names, link, strict=True)) for link in (*links, last)],
        "extra": {},
        "category": "FramePack",
        "description": graph.note,
    }
