// Under the sampler's preview: the takes of each section side by side, locks, and the drift of finished sections.
// A farm samples what its job file states: its takes are shown, and chosen nowhere.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { addPanel, element, setWidget, widgetOf } from "./graph.js";
import { onRun, runsOf } from "./runs.js";

const LINE = /^\s*(\d+)\s*:\s*([\d,\s]*?)\s*(?:locked\s+(\S+))?\s*$/;
const ROW = 62; // pixels
const MAX_ROWS = 40;
const DRIFT = 210;
const WIDTH = 380; // of a new node: the curves and the advice under them can be read
const MAX_TAKES = 8; // that a section shows

// The lines of takes, by section number; lines that are none of a section's stay as they are.
function read(text) {
  const lines = new Map();
  for (const line of text.split("\n")) {
    const found = LINE.exec(line);
    if (found) lines.set(Number(found[1]), { seeds: found[2].split(",").map((s) => s.trim()).filter(Boolean), lock: found[3] });
  }
  return lines;
}

function write(text, number, { seeds, lock }) {
  const others = text.split("\n").filter((line) => line.trim() && Number(LINE.exec(line)?.[1]) !== number);
  const own = seeds.length || lock ? [`${number}: ${seeds.join(", ")}${lock ? ` locked ${lock}` : ""}`.replace(":  ", ": ")] : [];
  return [...others, ...own].sort((a, b) => (parseInt(a) || 0) - (parseInt(b) || 0)).join("\n");
}

class Takes {
  constructor(node) {
    this.node = node;
    this.found = new Map(); // by section index: takes, the first made first
    this.box = element("div", { overflow: "auto", font: "12px sans-serif", color: "var(--input-text, #ddd)" });
    this.box.className = "framepack-takes";
    this.line = element("div", { padding: "2px 0" }, this.box);
    this.rows = element("div", {}, this.box);
    this.drift = element("img", { width: "100%", height: `${DRIFT}px`, objectFit: "contain" }, this.box);
    this.drift.className = "framepack-drift";
    this.advice = element("div", { minHeight: "30px" }, this.box);
    this.drift.hidden = true;
    addPanel(node, "framepack_takes", this.box, () => this.height());
  }

  get chosenHere() {
    return Boolean(widgetOf(this.node, "takes"));
  }

  get text() {
    return widgetOf(this.node, "takes")?.value ?? "";
  }

  height() {
    const rows = Math.min(this.found.size, MAX_ROWS);
    return rows ? 24 + ROW * rows + (this.drift.hidden ? 0 : DRIFT + 34) : 0;
  }

  take(run) {
    for (const section of run.finished.values()) {
      const takes = this.found.get(section.index) ?? [];
      const known = takes.find((take) => take.seed === section.seed);
      if (known) Object.assign(known, section);
      else this.found.set(section.index, [...takes, { ...section }].slice(-MAX_TAKES));
    }
    const num = Math.max(...[...run.finished.values()].map((section) => section.sections), 0);
    for (const index of this.found.keys()) if (num && index >= num) this.found.delete(index);
    if (run.said) this.line.textContent = run.said;
    this.draw();
    this.measure(run);
  }

  draw() {
    const lines = read(this.text);
    this.seen = this.text;
    this.rows.replaceChildren();
    for (const index of [...this.found.keys()].sort((a, b) => a - b).slice(0, MAX_ROWS)) {
      this.row(index, this.found.get(index), lines.get(index + 1) ?? { seeds: [] });
    }
    const wanted = this.node.computeSize();
    if (this.node.size[1] < wanted[1]) this.node.setSize([this.node.size[0], wanted[1]]);
    this.node.graph?.setDirtyCanvas(true, true);
  }

  row(index, takes, line) {
    const row = element("div", { display: "flex", gap: "6px", alignItems: "center", height: `${ROW}px` }, this.rows);
    row.className = "framepack-section";
    element("div", { width: "60px", flex: "none" }, row, `Section ${index + 1}`);
    const latest = runsOf(this.node)[0]?.finished.get(index);
    const current = line.seeds[0] ?? latest?.seed ?? takes.at(-1).seed;
    const shown = element("div", { display: "flex", gap: "4px", overflowX: "auto", flex: "1", minWidth: "58px" }, row);
    for (const take of takes) this.picture(shown, index, take, take.seed === current, line);
    if (!this.chosenHere) return;
    const chosen = takes.find((take) => take.seed === current);
    const buttons = element("div", { display: "flex", flexDirection: "column", gap: "3px", flex: "none" }, row);
    const another = element("button", {}, buttons, "Another take");
    another.disabled = Boolean(line.lock);
    another.onclick = () => this.another(index, takes, current, line);
    const lock = element("button", {}, buttons, line.lock ? "Unlock" : "Lock");
    lock.disabled = !line.lock && !chosen?.take;
    lock.title = lock.disabled ? "Turn keep on, and run once, to lock a section." : "A locked section is never made again.";
    lock.onclick = () => this.put(index, { ...line, lock: line.lock ? undefined : chosen.take });
  }

  picture(parent, index, take, chosen, line) {
    const image = element("img", { height: "54px", borderRadius: "4px", flex: "none" }, parent);
    image.className = "framepack-take";
    const place = new URLSearchParams(take.picture ?? {});
    if (take.picture) image.src = api.apiURL(`/view?${place}`);
    image.alt = image.title = `seed ${take.seed}`;
    image.style.outline = chosen ? "3px solid #e8590c" : "1px solid #8888";
    image.dataset.chosen = chosen;
    if (!this.chosenHere) return;
    image.style.cursor = "pointer";
    image.onclick = () => {
      const others = this.found.get(index).map((other) => other.seed).filter((seed) => seed !== take.seed);
      this.pin();
      this.put(index, { seeds: [take.seed, ...others], lock: line.lock && take.take ? take.take : undefined });
    };
  }

  // Makes the section again with a new seed; the whole plan's seed stays what it was in the run.
  another(index, takes, current, line) {
    const seed = String(Math.floor(Math.random() * 2 ** 32));
    const others = [current, ...takes.map((take) => take.seed).filter((other) => other !== current)];
    this.pin();
    this.put(index, { ...line, seeds: [seed, ...others] });
    app.queuePrompt(0, 1);
  }

  pin() {
    const run = runsOf(this.node)[0];
    if (run?.seed) setWidget(this.node, "seed", Number(run.seed));
    setWidget(this.node, "control_after_generate", "fixed");
  }

  put(index, line) {
    setWidget(this.node, "takes", write(this.text, index + 1, line));
    this.draw();
  }

  async measure(run) {
    const num = Math.max(...run.finished.keys()) + 1;
    const looks = Array.from({ length: num }, (_, index) => run.finished.get(index)?.look ?? null);
    if (!looks.some(Boolean)) return;
    const body = JSON.stringify({ node: "FramePackDriftMonitor", inputs: { looks } });
    const answer = await api.fetchApi("/framepack/draw", { method: "POST", body });
    if (!answer.ok) return;
    URL.revokeObjectURL(this.drift.src);
    this.drift.src = URL.createObjectURL(await answer.blob());
    this.drift.hidden = false;
    this.advice.textContent = decodeURIComponent(answer.headers.get("X-FramePack-Text") ?? "");
    this.draw();
  }
}

app.registerExtension({
  name: "framepack.Takes",
  nodeCreated(node) {
    if (!["SectionSampler", "FramePackFarm"].includes(node.comfyClass)) return;
    const takes = new Takes(node);
    node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
    onRun((run) => run.sampler === node && takes.take(run));
    const timer = setInterval(() => takes.text !== takes.seen && takes.found.size && takes.draw(), 500);
    const removed = node.onRemoved;
    node.onRemoved = function (...values) {
      clearInterval(timer);
      return removed?.apply(this, values);
    };
  },
});
