// Draws the picture of a schedule or a plan in its node while it is edited, and marks an error in the text itself.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const DRAWN = ["PackHistory", "EndpointPlanner"];
const SOURCES = ["PackHistory", "FramePackEndpoint"];
const MAX_DEPTH = 64;
const PAUSE = 350; // ms between two looks at a node's values

// The node at the other end of an input's link, past reroutes.
function source(node, input) {
  const link = input.link == null ? null : (node.graph?.getLink?.(input.link) ?? node.graph?.links?.[input.link]);
  const origin = link && node.graph.getNodeById(link.origin_id);
  return origin?.type === "Reroute" ? source(origin, origin.inputs[0]) : origin;
}

// What the route reads: a node's id and its values; linked values as the node that gives them, if it can be known.
function request(node, depth = MAX_DEPTH) {
  const inputs = {};
  for (const widget of node.widgets ?? []) {
    if (!widget.framepackLive && ["string", "number", "boolean"].includes(typeof widget.value)) {
      inputs[widget.name] = widget.value;
    }
  }
  for (const input of node.inputs ?? []) {
    if (input.link == null) continue;
    const origin = source(node, input); // the link's value stands, not the widget's
    const known = origin && SOURCES.includes(origin.comfyClass) && depth > 0;
    inputs[input.name] = known ? request(origin, depth - 1) : { node: origin?.comfyClass ?? "", inputs: {} };
  }
  return { node: node.comfyClass, inputs };
}

function element(tag, style, parent) {
  const made = document.createElement(tag);
  Object.assign(made.style, style);
  parent?.append(made);
  return made;
}

class LivePicture {
  constructor(node) {
    this.node = node;
    this.box = element("div", { display: "flex", flexDirection: "column", gap: "4px", overflow: "hidden" });
    this.box.className = "framepack-live";
    this.image = element("img", { width: "100%", objectFit: "contain", minHeight: "0", flex: "1" }, this.box);
    this.line = element("div", { font: "12px sans-serif", color: "var(--input-text, #ddd)" }, this.box);
    this.image.hidden = true;
    const widget = node.addDOMWidget("framepack_picture", "framepack_picture", this.box, {
      serialize: false,
      hideOnZoom: false,
      getValue: () => "",
      setValue: () => {},
      getMinHeight: () => 180,
    });
    widget.serialize = false; // saved values stay as they were
    widget.framepackLive = true;
  }

  async look() {
    const body = JSON.stringify(request(this.node));
    if (body === this.seen || this.waiting) return;
    this.seen = body;
    this.waiting = true;
    try {
      const answer = await api.fetchApi("/framepack/draw", { method: "POST", body });
      if (answer.ok) await this.show(await answer.blob(), answer.headers.get("X-FramePack-Text"));
      else this.fail(await answer.json(), answer.status !== 409);
    } catch (fault) {
      this.seen = null; // the server is away: look again
    } finally {
      this.waiting = false;
    }
  }

  async show(picture, text) {
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(picture);
    this.image.hidden = false;
    this.image.style.opacity = 1;
    this.line.replaceChildren(decodeURIComponent(text ?? ""));
    this.mark(false);
  }

  // A fault of this node is its own; one of another node only waits.
  fail({ message, text, at, end }, own) {
    this.line.replaceChildren();
    if (text !== undefined) {
      const line = element("div", { font: "12px monospace", overflowWrap: "anywhere" }, this.line);
      const fault = element("mark", { background: "#c33", color: "#fff" });
      fault.textContent = text.slice(at, end) || "…";
      line.append(text.slice(0, at), fault, text.slice(end));
    }
    element("div", { color: own ? "#f77" : "inherit", whiteSpace: "pre-wrap" }, this.line).textContent = message;
    this.mark(own);
    this.image.style.opacity = 0.3;
  }

  mark(bad) {
    this.box.style.outline = bad ? "2px solid #c33" : "none";
    if (bad || this.bad) this.node.has_errors = bad; // an error that a run found stays until the next run
    this.bad = bad;
    this.node.graph?.setDirtyCanvas(true, true);
  }
}

app.registerExtension({
  name: "framepack.LivePictures",
  nodeCreated(node) {
    if (!DRAWN.includes(node.comfyClass)) return;
    const picture = new LivePicture(node);
    const timer = setInterval(() => document.hidden || picture.look(), PAUSE);
    const removed = node.onRemoved;
    node.onRemoved = function (...values) {
      clearInterval(timer);
      return removed?.apply(this, values);
    };
  },
});
