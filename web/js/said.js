// What a node says of a run, such as how much of a LoRA matched: no front end draws it, so it stands below the node's inputs.
import { app } from "../../../scripts/app.js";
import { addPanel } from "./graph.js";

const NODES = ["FramePackLoadModel", "FramePackLoraLoader", "FramePackSaveJob", "FramePackDrift", "FramePackStore"];
const HEIGHT = 54; // pixels; longer text scrolls

function line(node) {
  const box = document.createElement("div");
  box.className = "framepack-said";
  Object.assign(box.style, { font: "12px sans-serif", whiteSpace: "pre-wrap", overflow: "auto" });
  box.style.color = "var(--input-text, #ddd)";
  addPanel(node, "framepack_said", box, () => HEIGHT);
  return box;
}

app.registerExtension({
  name: "framepack.Said",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const executed = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      const text = output?.text?.join?.("\n");
      if (text) (this.framepackSaid ??= line(this)).textContent = text;
      return executed?.call(this, output, ...rest);
    };
  },
});
