"""Where the nodes of a shipped workflow stand on the page: five numbered groups from left to right, and a note.

A page is at most WIDTH pixels wide. Heights are of the tallest drawing, classic and Nodes 2.0, on the oldest and the
newest host; tests/browser/test_page.py compares them with the real page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 2200
NODE, GAP, PAD, TITLE, HEADING = 276, 18, 12, 30, 44  # widths of a node and between nodes, heights of titles


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A numbered group: its columns, its colour, and the nodes in it with their heights."""

    title: str
    color: str
    columns: int
    heights: Mapping[str, int]


GROUPS = (
    Group(
        title="1 Models",
        color="#4a6fa5",
        columns=1,
        heights={
            "FramePackLoadModel": 186,
            "DualCLIPLoader": 186,
            "CLIPLoader": 160,
            "LoadFramePackTextEncoder": 90,
            "VAELoader": 84,
            "CLIPVisionLoader": 84,
        },
    ),
    Group(
        title="2 Image and prompt",
        color="#5b8a5b",
        columns=2,
        heights={
            "LoadImage": 410,
            "LoadVideo": 400,
            "GetVideoComponents": 118,
            "ImageScale": 186,
            "FramePackResolution": 170,
            "VAEEncode": 76,
            "CLIPVisionEncode": 108,
            "CLIPTextEncode": 176,
            "EmptyImage": 186,
            "FramePackVideoEncode": 250,
            "FramePackStill": 130,
            "ImageFromBatch": 130,
            "FramePackKeyframe": 130,
        },
    ),
    Group(
        title="3 Length and schedule",
        color="#a5824a",
        columns=2,
        heights={"PackHistory": 440, "FramePackEndpoint": 200, "EndpointPlanner": 880},
    ),
    Group(
        title="4 Sample",
        color="#8a5b8a",
        columns=1,
        heights={"FramePackSolver": 90, "FramePackPyramid": 290, "FramePackRepair": 160, "SectionSampler": 730},
    ),
    Group(
        title="5 Save",
        color="#a55a4a",
        columns=1,
        heights={
            "FramePackVAEDecode": 110,
            "ImageFromBatch": 340,
            "CreateVideo": 115,
            "FramePackVideo": 190,
            "SaveVideo": 420,
            "SaveImage": 340,
        },
    ),
)
NOTE = "MarkdownNote"
SPARE = 80  # pixels above the note, into which older front ends let a node grow
LAST_FRAME = "ImageFromBatch"  # of two groups: where a still is saved, it stands before SaveImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle on the page; a node's title stands above it."""

    x: int
    y: int
    width: int
    height: int


def place(nodes: Sequence[tuple[int, str]]) -> dict[int, Box]:
    """Where nodes stand, by id and kind, in the order in which they were added."""
    found, left = {}, 0
    for number, group in enumerate(GROUPS):
        inside = [(node, group.heights[kind]) for node, kind in nodes if number == group_of(kind, nodes)]
        columns = _columns(inside, group.columns)
        for column, members in enumerate(columns):
            x, y = left + PAD + column * (NODE + GAP), HEADING + TITLE
            for node, height in members:
                found[node] = Box(x=x, y=y, width=NODE, height=height)
                y += height + TITLE + GAP
        left += 2 * PAD + max(len(columns), 1) * (NODE + GAP) - GAP + GAP
    assert left - GAP <= WIDTH, left
    return found


def group_of(kind: str, nodes: Sequence[tuple[int, str]]) -> int:
    """The group of a kind of node. Raises KeyError for one that none has."""
    if kind == LAST_FRAME and any(other == "SaveImage" for _, other in nodes):
        return len(GROUPS) - 1
    for number, group in enumerate(GROUPS):
        if kind in group.heights:
            return number
    raise KeyError(f"tools/pages.py has no group for {kind}")


def _columns(nodes: Sequence[tuple[int, int]], most: int) -> list[list[tuple[int, int]]]:
    """Nodes with their heights in columns of about the same height, in order."""
    total, columns, height = sum(h + TITLE + GAP for _, h in nodes), [[]], 0
    for node, tall in nodes:
        if len(columns) < most and height + tall / 2 > total / most and columns[-1]:
            columns.append([])
            height = 0
        columns[-1].append((node, tall))
        height += tall + TITLE + GAP
    return columns


def boxes(kinds: Mapping[int, str], places: Mapping[int, Box]) -> list[dict[str, Any]]:
    """The groups as the page keeps them."""
    found = []
    for number, group in enumerate(GROUPS):
        inside = [box for node, box in places.items() if group_of(kinds[node], list(kinds.items())) == number]
        if inside:
            x, bottom = min(box.x for box in inside) - PAD, max(box.y + box.height for box in inside) + PAD
            wide = max(box.x + box.width for box in inside) + PAD - x
            bounds = [x, 0, wide, bottom]
            entry = {"id": number + 1, "title": group.title, "bounding": bounds, "color": group.color}
            found.append(entry | {"font_size": 24, "flags": {}})
    return found


def note(number: int, text: str, places: Mapping[int, Box], kinds: Mapping[int, str]) -> dict[str, Any]:
    """What the workflow is for, in words, below the group with the most room under it."""
    bounds = [group["bounding"] for group in boxes(kinds, places)]
    left, _, width, bottom = min((box for box in bounds if box[2] > NODE + 2 * PAD), key=lambda box: box[3])
    end = max(box[3] for box in bounds)
    return {
        "id": number,
        "type": NOTE,
        "pos": [left, bottom + TITLE + GAP + SPARE],
        "size": [width, max(end - bottom - TITLE - GAP, 320)],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [text],
        "title": "Read me",
        "color": "#432",
        "bgcolor": "#653",
    }
