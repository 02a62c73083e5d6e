// A text whose values have names gets a button that offers them; any other value can still be written.
import { app } from "../../../scripts/app.js";

const KEY = "framepack_named"; // nodes/page.py

function offer(node, name, named) {
  const text = node.widgets?.find((widget) => widget.name === name);
  if (!text) return;
  const button = node.addWidget("button", `choose a ${name} ...`, null, (value, canvas, of, at, event) => {
    const entries = named.map(([label, chosen, note]) => ({
      content: `<b>${label}</b> &nbsp;<small>${note}</small>`,
      callback: () => {
        text.value = chosen;
        text.callback?.(chosen);
        node.graph?.setDirtyCanvas(true, true);
      },
    }));
    new LiteGraph.ContextMenu(entries, { event: event ?? window.event, title: name });
  });
  button.serialize = false; // saved values stay as they were
  button.options.serialize = false;
  button.framepackLive = true;
  button.advanced = text.advanced ?? text.options?.advanced;
  button.options.advanced = button.advanced;
}

app.registerExtension({
  name: "framepack.NamedValues",
  nodeCreated(node) {
    const { required, optional } = node.constructor.nodeData?.input ?? {};
    for (const [name, [, options]] of Object.entries({ ...required, ...optional })) {
      if (options?.[KEY]) offer(node, name, options[KEY]);
    }
  },
});
