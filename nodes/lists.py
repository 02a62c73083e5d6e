"""Inputs that a node takes as one value, however long the list that comes by a link.

The host runs a node once for each item of its longest list. Where the items of an input must agree, such as start
images that give a plan its size, that would repeat the node's work and everything behind it. A node states such inputs
in ``AS_ONE``: a name and the function that makes one value of a list. `listed` then makes the host hand over whole
lists, and runs the node once for each item of the others, as the host would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_api.latest import io

from .validation import check_inputs


def listed(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node with its inputs of ``AS_ONE`` taken as one value each; any other node as it is."""
    as_one = getattr(node, "AS_ONE", {})
    if not as_one:
        return node
    run, validate = node.execute, node.validate_inputs

    def define_schema(cls: type) -> io.Schema:
        schema = node.define_schema()
        schema.is_input_list = True
        for output in schema.outputs:
            output.is_output_list = True
        return schema

    def execute(cls: type, **lists: list[Any]) -> io.NodeOutput:
        for name in as_one.keys() & lists.keys():
            for item in lists[name]:
                check_inputs(node, {name: item})
        return _joined([run.__func__(cls, **row) for row in _rows(lists, as_one)])

    def validate_inputs(cls: type, **lists: list[Any] | None) -> bool:
        given = {name: values for name, values in lists.items() if values is not None}
        return all(validate.__func__(cls, **row) for row in _rows(given, as_one))

    validate_inputs.__signature__ = validate.__func__.__signature__
    methods = {name: classmethod(f) for name, f in (("execute", execute), ("validate_inputs", validate_inputs))}
    methods["define_schema"] = classmethod(define_schema)
    return type(node.__name__, (node,), {"__doc__": node.__doc__, "__module__": node.__module__} | methods)


def _rows(lists: Mapping[str, list[Any]], as_one: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The inputs of each run; the last item of a shorter list is repeated."""
    columns = {name: [as_one[name](values)] if name in as_one else values for name, values in lists.items()}
    for i in range(max(map(len, columns.values()), default=1)):
        yield {name: values[min(i, len(values) - 1)] for name, values in columns.items()}


def _joined(outputs: list[io.NodeOutput]) -> io.NodeOutput:
    """The results of all runs as lists, and what they show one after the other."""
    shown: dict[str, list[Any]] = {}
    for output in outputs:
        for name, values in output.ui.items():
            shown.setdefault(name, []).extend(values)
    return io.NodeOutput(*map(list, zip(*(output.result for output in outputs), strict=True)), ui=shown)
