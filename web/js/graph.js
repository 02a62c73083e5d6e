// What the page's nodes say of themselves: their values, and the nodes at the other ends of their links.
import { app } from "../../../scripts/app.js";

const SOURCES = ["PackHistory", "FramePackEndpoint"]; // nodes whose value the drawing route knows without a run
const MAX_DEPTH = 64;

// The node at the other end of an input's link, past reroutes.
export function source(node, input) {
  const link = input?.link == null ? null : (node.graph?.getLink?.(input.link) ?? node.graph?.links?.[input.link]);
  const origin = link && node.graph.getNodeById(link.origin_id);
  return origin?.type === "Reroute" ? source(origin, origin.inputs[0]) : origin;
}

export const inputOf = (node, name) => (node.inputs ?? []).find((input) => input.name === name);
export const widgetOf = (node, name) => (node.widgets ?? []).find((widget) => widget.name === name);

export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  widget.value = value;
  widget.callback?.(value);
  node.graph?.setDirtyCanvas(true, true);
}

function plainWidgets(node) {
  const own = (widget) => widget.serialize !== false && widget.options?.serialize !== false && widget.name?.[0] !== "$";
  const shown = (node.widgets ?? []).filter((widget) => !widget.framepackLive && own(widget)); // not what a run shows
  return shown.filter((widget) => ["string", "number", "boolean"].includes(typeof widget.value));
}

// What the route reads: a node's id and its values; linked values as the node that gives them, if it can be known.
export function request(node, depth = MAX_DEPTH) {
  const inputs = {};
  for (const widget of plainWidgets(node)) inputs[widget.name] = widget.value;
  for (const input of node.inputs ?? []) {
    if (input.link == null) continue;
    const origin = source(node, input); // the link's value stands, not the widget's
    const known = origin && SOURCES.includes(origin.comfyClass) && depth > 0;
    inputs[input.name] = known ? request(origin, depth - 1) : { node: origin?.comfyClass ?? "", inputs: {} };
  }
  return { node: node.comfyClass, inputs };
}

// All that a node's result depends on, as text: its values, and the same of the nodes that it is linked to.
function describe(node, seen = new Set()) {
  if (!node || seen.has(node)) return node?.id ?? null;
  seen.add(node);
  const links = (node.inputs ?? []).filter((input) => input.link != null);
  const others = links.map((input) => [input.name, describe(source(node, input), seen)]);
  const own = plainWidgets(node).filter((widget) => widget.name !== "control_after_generate");
  return [node.comfyClass ?? node.type, node.mode, own.map((widget) => widget.value), others];
}

// Every input of a node by name: what its value or its link depends on.
export function parts(node) {
  const found = {};
  for (const widget of plainWidgets(node)) found[widget.name] = JSON.stringify(widget.value);
  for (const input of node.inputs ?? []) {
    if (input.link != null) found[input.name] = JSON.stringify(describe(source(node, input)));
  }
  return found;
}

function* nodesOf(graph) {
  for (const node of graph?._nodes ?? []) {
    yield node;
    if (node.subgraph) yield* nodesOf(node.subgraph);
  }
}

export const nodesOfClass = (name) => [...nodesOf(app.rootGraph ?? app.graph)].filter((n) => n.comfyClass === name);
export const plannerOf = (sampler) => source(sampler, inputOf(sampler, "plan"));
export const samplerOf = (planner) => nodesOfClass("SectionSampler").find((node) => plannerOf(node) === planner);

export function element(tag, style, parent, text) {
  const made = document.createElement(tag);
  Object.assign(made.style, style);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

// A part of a node that is drawn by the page alone: nothing of it is saved or queued.
export function addPanel(node, name, box, height) {
  // What is dragged here, a border or a choice of text, would move the node in some front ends' Nodes 2.0.
  box.addEventListener("pointermove", (event) => event.buttons & 1 && event.stopPropagation());
  const widget = node.addDOMWidget(name, name, box, {
    serialize: false,
    hideOnZoom: false,
    getValue: () => "",
    setValue: () => {},
    getMinHeight: height,
    getMaxHeight: name === "framepack_picture" ? undefined : height,
  });
  widget.serialize = false; // saved values stay as they were
  widget.framepackLive = true;
  return widget;
}
