"""Pictures of nodes while they are edited: what a node would draw from the values that the page shows now.

The page sends a node's id with its values. A value that comes by a link is the node at the link's other end, in the
same form. If that node is none of SOURCES, the schema's default stands in for a widget's value; another input cannot be
known before a run. Nothing is run, read or written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from typing import Any

from comfy_api.latest import io

from ..framepack.errors import FramePackError, quoted
from ..framepack.metrics.monitor import advice, drifts
from ..framepack.pictures.drift_picture import draw_drift
from ..framepack.planning.plan import Plan
from ..framepack.planning.reuse import Fate
from .earlier import fates_of
from .endpoints import FramePackEndpoint
from .pack_history import PackHistory
from .planner import EndpointPlanner, plan_of
from .types import Drawing
from .validation import check_inputs

DRAWN: dict[str, type[io.ComfyNode]] = {"PackHistory": PackHistory, "EndpointPlanner": EndpointPlanner}
SOURCES: dict[str, type[io.ComfyNode]] = {"PackHistory": PackHistory, "FramePackEndpoint": FramePackEndpoint}
MONITOR = "FramePackDriftMonitor"
MAX_DEPTH = 64  # links that a value may come through
SECONDS = 2.0


class LiveError(FramePackError):
    """A request for a picture that cannot be drawn while the node is edited."""


class NotYetError(LiveError):
    """Nothing is wrong with this node: a link is lacking, or another node has a fault, or only a run can tell."""


def live(request: Any) -> Drawing:
    """The picture of ``{"node": id, "inputs": {...}}``. Raises FramePackError.

    A planner's request may have ``runs`` and ``takes``, for the fates of its sections. FramePackDriftMonitor is
    no node: its input ``looks`` are finished sections, as a run's events state them.
    """
    name, given = _parts(request, {"runs", "takes", "seed", "prompt"})
    if name == MONITOR:
        found = drifts(given.get("looks"))
        return Drawing(draw_drift(found), advice(found))
    if name not in DRAWN:
        raise LiveError(f"Only {', '.join(DRAWN)} are drawn while they are edited; got {quoted(name)}.")
    poll, node = _until(time.monotonic() + SECONDS), DRAWN[name]
    inputs = _inputs(node, given, MAX_DEPTH)
    if "runs" not in request or node is not EndpointPlanner:
        return node.draw(poll, **inputs)

    def before(inputs: Mapping[str, Any]) -> Plan:
        return plan_of(poll, **_inputs(EndpointPlanner, inputs, MAX_DEPTH))

    def found_by(plan: Plan) -> list[Fate]:
        return fates_of(plan, request, before)

    return node.draw(poll, found_by, **inputs)


def _parts(request: Any, more: Set[str] = frozenset()) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(request, Mapping) or request.keys() - more != {"node", "inputs"}:
        raise LiveError("A request has a node and its inputs.")
    name, given = request["node"], request["inputs"]
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise LiveError("A request has a node's id and its inputs by name.")
    return name, given


def _inputs(node: type[io.ComfyNode], given: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The node's inputs: as given, by its sources, or the schema's defaults. Checked as before a run."""
    inputs = {}
    for known in node.define_schema().inputs:
        value, widget = given.get(known.id), isinstance(known, io.WidgetInput)
        if known.id in getattr(node, "UNSEEN", ()):
            continue
        if isinstance(value, Mapping) and not (widget and value.get("node") not in SOURCES):
            inputs[known.id] = _value(known.id, value, depth)
        elif known.id in given and not isinstance(value, Mapping):
            inputs[known.id] = value
        elif widget:
            inputs[known.id] = known.default
        elif not known.optional:
            raise NotYetError(f"Connect {known.id} to see the picture.")
    check_inputs(node, inputs)
    return inputs


def _value(wanted: str, request: Mapping[str, Any], depth: int) -> Any:
    if depth == 0:
        raise LiveError(f"A value comes through at most {MAX_DEPTH} nodes.")
    name, given = _parts(request)
    if name not in SOURCES:
        raise NotYetError(f"{wanted} is known when the workflow runs. The picture is drawn then.")
    node = SOURCES[name]
    try:
        return node.value(**_inputs(node, given, depth - 1))
    except FramePackError as fault:
        raise NotYetError(f"Waiting for {wanted}: see the node that it comes from.") from fault


def _until(deadline: float) -> Callable[[], None]:
    def poll() -> None:
        if time.monotonic() > deadline:
            raise NotYetError("This plan takes long to draw. Its picture is drawn when the workflow runs.")

    return poll
