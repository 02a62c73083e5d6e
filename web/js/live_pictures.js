// Draws the picture of a schedule or a plan in its node while it is edited, and marks an error in the text itself.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { addPanel, element, request, samplerOf, widgetOf } from "./graph.js";
import { earlier, promptOf, seedOf } from "./runs.js";

const DRAWN = ["PackHistory", "EndpointPlanner"];
const PAUSE = 350; // ms between two looks at a node's values

// A planner's picture also tells which sections the runs before have made.
function asked(node) {
  const sampler = node.comfyClass === "EndpointPlanner" ? samplerOf(node) : null;
  const runs = sampler ? earlier(sampler) : [];
  if (!runs.length) return request(node);
  const takes = widgetOf(sampler, "takes")?.value ?? "";
  return { ...request(node), runs, takes, seed: seedOf(sampler), prompt: promptOf(sampler) };
}

class LivePicture {
  constructor(node) {
    this.node = node;
    this.box = element("div", { display: "flex", flexDirection: "column", gap: "4px", overflow: "hidden" });
    this.box.className = "framepack-live";
    this.image = element("img", { width: "100%", objectFit: "contain", minHeight: "0", flex: "1" }, this.box);
    this.line = element("div", { font: "12px sans-serif", color: "var(--input-text, #ddd)" }, this.box);
    this.image.hidden = true;
    addPanel(node, "framepack_picture", this.box, () => 180);
  }

  async look() {
    const body = JSON.stringify(asked(this.node));
    if (body === this.seen || this.waiting) return;
    this.seen = body;
    this.waiting = true;
    try {
      const answer = await api.fetchApi("/framepack/draw", { method: "POST", body });
      if (answer.ok) await this.show(await answer.blob(), answer.headers);
      else this.fail(await answer.json(), answer.status !== 409);
    } catch (fault) {
      this.seen = null; // the server is away: look again
    } finally {
      this.waiting = false;
    }
  }

  async show(picture, headers) {
    const data = headers.get("X-FramePack-Data");
    this.node.framepackPlan = data ? JSON.parse(decodeURIComponent(data)) : null;
    this.node.framepackTimeline?.draw();
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(picture);
    this.image.hidden = false;
    this.image.style.opacity = 1;
    this.line.replaceChildren(decodeURIComponent(headers.get("X-FramePack-Text") ?? ""));
    this.mark(false);
  }

  // A fault is this node's own, or it waits for another node or for a run.
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
