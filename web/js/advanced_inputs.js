// Older front ends draw advanced inputs unless the widget itself says so, and keep their place free where it does.
// There, "Show Advanced" in the node's menu brings them back.
import { app } from "../../../scripts/app.js";

const DRAWN = ["PackHistory", "EndpointPlanner"]; // web/js/live_pictures.js
const SPACING = 4; // pixels between widgets

function hide(node, widget) {
  const size = widget.computeSize;
  widget.advanced = true;
  Object.defineProperty(widget, "computeSize", {
    get: () => (node.showAdvanced ? size : () => [0, -SPACING]),
    set: () => {},
    configurable: true,
  });
}

app.registerExtension({
  name: "framepack.AdvancedInputs",
  nodeCreated(node) {
    if (!node.constructor.nodeData?.category?.startsWith("FramePack")) return;
    if (DRAWN.includes(node.comfyClass)) node.hideOutputImages = true; // its picture is there before a run
    const advanced = (node.widgets ?? []).filter((widget) => widget.options?.advanced && !widget.advanced);
    for (const widget of advanced) hide(node, widget);
    if (advanced.length) node.setSize([node.size[0], node.computeSize()[1]]);
  },
});
