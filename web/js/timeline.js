// A timeline in the planner: prompts, key frames and endpoints over the video's seconds. It edits the same text and nodes.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { addPanel, element, inputOf, nodesOfClass, samplerOf, setWidget, source, widgetOf } from "./graph.js";

const HEIGHT = 96;
const COLOURS = ["#1c7ed6", "#2f9e44", "#9c36b5", "#e67700", "#0c8599"];
const MIN = 0.1; // seconds of a stretch

const seconds = (value) => String(Math.round(value * 100) / 100);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

class Timeline {
  constructor(node) {
    this.node = node;
    this.box = element("div", { font: "12px sans-serif", color: "var(--input-text, #ddd)", userSelect: "none" });
    this.box.className = "framepack-timeline";
    this.points = element("div", { position: "relative", height: "20px" }, this.box);
    this.track = element("div", { position: "relative", height: "34px", background: "#8883", borderRadius: "4px" }, this.box);
    this.track.className = "framepack-track";
    this.editor = element("div", { display: "flex", gap: "4px", height: "30px", alignItems: "center" }, this.box);
    this.say();
    this.track.addEventListener("click", (event) => event.target === this.track && this.open(this.at(event), null));
    this.box.addEventListener("dragover", (event) => event.preventDefault());
    this.box.addEventListener("drop", (event) => this.drop(event));
    addPanel(node, "framepack_timeline", this.box, () => HEIGHT);
  }

  get text() {
    return widgetOf(this.node, "prompts")?.value ?? "";
  }

  get length() {
    return this.node.framepackPlan?.seconds ?? 0;
  }

  say(text = "Click to write a prompt, drag a border, drop an image for a key frame.") {
    this.editor.replaceChildren(element("span", { opacity: 0.7 }, null, text));
  }

  at(event) {
    const place = this.track.getBoundingClientRect();
    return clamp((event.clientX - place.left) / place.width, 0, 1) * this.length;
  }

  place(from, to) {
    return { position: "absolute", left: `${(100 * from) / this.length}%`, width: `${(100 * (to - from)) / this.length}%` };
  }

  // What the server has read of the text; while an edit is being drawn, what it was before.
  draw() {
    if (this.dragged || !this.node.framepackPlan) return;
    this.stretches = (this.node.framepackPlan.stretches ?? []).map(([start, stop, ...at]) => ({ start, stop: Math.min(stop, this.length), at }));
    this.drawn = this.text;
    this.track.replaceChildren();
    this.stretches.forEach((stretch, index) => this.block(stretch, index));
    this.points.replaceChildren();
    for (const point of this.endpoints()) this.point(point);
  }

  told({ at }) {
    return at.length ? this.drawn.slice(at[2], at[3]) : "(the sampler's own prompt)";
  }

  block(stretch, index) {
    const style = { ...this.place(stretch.start, stretch.stop), top: "0", height: "34px", overflow: "hidden", cursor: "text" };
    const look = { background: COLOURS[index % COLOURS.length], color: "#fff", padding: "8px 6px", boxSizing: "border-box" };
    const block = element("div", { ...style, ...look, whiteSpace: "nowrap", borderRadius: "4px" }, this.track, this.told(stretch));
    block.className = "framepack-stretch";
    block.onclick = (event) => this.open(this.at(event), index);
    if (index === 0) return;
    const border = element("div", { ...this.place(stretch.start, stretch.start), width: "10px", marginLeft: "-5px" }, this.track);
    Object.assign(border.style, { top: "0", height: "34px", cursor: "ew-resize", background: "#fff6" });
    border.className = "framepack-border";
    this.draggable(border, (time) => {
      const before = this.stretches[index - 1];
      const moved = clamp(Math.round(time * 20) / 20, before.start + MIN, stretch.stop - MIN);
      border.style.left = `${(100 * moved) / this.length}%`;
      return () => this.move(index, moved);
    });
  }

  // Follows the pointer; what `moved` gives back is done at the end.
  draggable(handle, moved) {
    handle.onpointerdown = (event) => {
      event.stopPropagation();
      handle.setPointerCapture(event.pointerId);
      let done = null;
      this.dragged = true;
      handle.onpointermove = (other) => (done = moved(this.at(other)));
      handle.onpointerup = () => {
        handle.onpointermove = handle.onpointerup = null;
        this.dragged = false;
        done?.();
      };
    };
  }

  write(text) {
    setWidget(this.node, "prompts", text);
  }

  times(text, stretch, start, stop) {
    return stretch.at.length ? text.slice(0, stretch.at[0]) + `${seconds(start)}-${seconds(stop)}s` + text.slice(stretch.at[1]) : text;
  }

  // The border before a stretch; the later place in the text first, so that the earlier one still holds.
  move(index, time) {
    const [before, after] = [this.stretches[index - 1], this.stretches[index]];
    const text = this.times(this.drawn, after, time, after.stop);
    this.write(this.times(text, before, before.start, time));
  }

  open(time, index) {
    const stretch = index === null ? null : this.stretches[index];
    if (stretch && !stretch.at.length) return;
    const input = element("input", { flex: "1", minWidth: "0" });
    input.className = "framepack-prompt";
    input.value = stretch ? this.told(stretch) : "";
    input.placeholder = "What happens";
    const put = () => {
      const prompt = input.value.trim().replaceAll("\n", " ");
      this.say();
      if (!prompt) return;
      if (stretch) this.write(this.drawn.slice(0, stretch.at[2]) + prompt + this.drawn.slice(stretch.at[3]));
      else this.write(`${this.text.trim() ? `${this.text.trimEnd()}\n` : ""}0s: ${prompt}`);
    };
    input.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter") put();
      if (event.key === "Escape") this.say();
    };
    this.editor.replaceChildren(input);
    const buttons = [["Write", put], ["Endpoint", () => this.endpoint(time, input.value)]];
    if (stretch) buttons.splice(1, 0, [`Split at ${seconds(time)} s`, () => this.split(index, time, input.value.trim())]);
    for (const [name, act] of buttons) element("button", { flex: "none" }, this.editor, name).onclick = act;
    input.focus();
  }

  // The stretch ends here, and another prompt begins: on a line of its own, or in a bracket behind its bracket.
  split(index, time, prompt) {
    const stretch = this.stretches[index];
    const moment = clamp(Math.round(time * 20) / 20, stretch.start + MIN, stretch.stop - MIN);
    const span = `${seconds(moment)}-${seconds(stretch.stop)}s`;
    const told = prompt || this.told(stretch);
    const end = this.drawn.indexOf("\n", stretch.at[3]) < 0 ? this.drawn.length : this.drawn.indexOf("\n", stretch.at[3]);
    const bracket = this.drawn[stretch.at[3]] === "]";
    const place = bracket ? stretch.at[3] + 1 : end;
    const text = this.drawn.slice(0, place) + (bracket ? ` [${span}: ${told}]` : `\n${span}: ${told}`) + this.drawn.slice(place);
    this.write(this.times(text, stretch, stretch.start, moment));
    this.say();
  }

  endpoints() {
    const found = [];
    let node = source(this.node, inputOf(this.node, "endpoints"));
    while (node?.comfyClass === "FramePackEndpoint" && !found.includes(node)) {
      found.push(node);
      node = source(node, inputOf(node, "previous"));
    }
    return found;
  }

  point(node) {
    const time = widgetOf(node, "seconds")?.value ?? 0;
    const [keyframe, prompt] = [widgetOf(node, "keyframe")?.value, widgetOf(node, "prompt")?.value];
    const mark = element("div", { ...this.place(time, time), width: "20px", marginLeft: "-10px", cursor: "ew-resize" }, this.points);
    Object.assign(mark.style, { textAlign: "center", top: "0" });
    mark.textContent = keyframe ? "▣" : "◆";
    mark.title = `${seconds(time)} s ${keyframe} ${prompt}`;
    mark.className = "framepack-point";
    this.draggable(mark, (moved) => {
      const there = clamp(Math.round(moved * 20) / 20, 0, this.length);
      mark.style.left = `${(100 * there) / this.length}%`;
      return () => setWidget(node, "seconds", there);
    });
  }

  add(kind, values, x, y) {
    const made = LiteGraph.createNode(kind);
    this.node.graph.add(made);
    made.pos = [this.node.pos[0] + x, this.node.pos[1] + this.node.size[1] + y];
    for (const [name, value] of Object.entries(values)) setWidget(made, name, value);
    return made;
  }

  link(from, to, name, slot = 0) {
    from.connect(slot, to, to.inputs.findIndex((input) => input.name === name));
  }

  // The new node takes the place of the one that the input had, which becomes the one before it.
  chain(made, node, name) {
    const before = source(node, inputOf(node, name));
    if (before) this.link(before, made, "previous");
    this.link(made, node, name);
  }

  endpoint(time, prompt, keyframe = "") {
    const values = { seconds: Math.round(time * 20) / 20, prompt: prompt.trim(), keyframe };
    this.chain(this.add("FramePackEndpoint", values, 0, 80), this.node, "endpoints");
    this.say();
  }

  async drop(event) {
    const file = [...(event.dataTransfer?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    const time = this.at(event);
    const body = new FormData();
    body.append("image", file);
    const answer = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!answer.ok) return this.say(`${file.name} could not be uploaded.`);
    this.keyframe(time, (await answer.json()).name);
  }

  // An image at a time: loaded, in the plan's size, encoded by the start image's VAE, named, and placed.
  keyframe(time, image) {
    const sampler = samplerOf(this.node);
    const encoder = nodesOfClass("VAEEncode").find((node) => source(node, inputOf(node, "vae")));
    if (!sampler || !encoder) return this.say("Connect the plan to FramePack Section Sampler, and a VAE to VAE Encode, first.");
    const name = `key ${nodesOfClass("FramePackKeyframe").length + 1}`;
    const [width, height] = ["width", "height"].map((side) => widgetOf(this.node, side)?.value);
    const loaded = this.add("LoadImage", { image }, 0, 320);
    const scaled = this.add("ImageScale", { upscale_method: "area", width, height, crop: "center" }, 240, 320);
    const encoded = this.add("VAEEncode", {}, 480, 320);
    const named = this.add("FramePackKeyframe", { name }, 720, 320);
    this.link(loaded, scaled, "image");
    this.link(scaled, encoded, "pixels");
    this.link(source(encoder, inputOf(encoder, "vae")), encoded, "vae");
    this.link(encoded, named, "latent");
    this.chain(named, sampler, "anchors");
    this.endpoint(time, "", name);
  }
}

app.registerExtension({
  name: "framepack.Timeline",
  nodeCreated(node) {
    if (node.comfyClass === "EndpointPlanner") node.framepackTimeline = new Timeline(node);
  },
});
