// Remembers the latest runs of each sampler: what it was given then, and the sections that were finished.
// A farm is a sampler whose inputs stand in its job file.
import { api } from "../../../scripts/api.js";
import { inputOf, nodesOfClass, parts, plannerOf, request, source, widgetOf } from "./graph.js";

const MAX_RUNS = 8; // of one sampler
const NOT_COMPARED = ["plan", "takes", "keep", "vae", "control_after_generate"];
const runs = new WeakMap(); // by sampler, the latest first
const queued = new Map(); // by prompt id
const listeners = new Set();
let latest = null; // what is being queued

// The sampler's seed as text; null where another node gives it.
export function seedOf(sampler) {
  const linked = (sampler.inputs ?? []).some((input) => input.name === "seed" && input.link != null);
  return linked ? null : String(widgetOf(sampler, "seed")?.value ?? "") || null;
}

// The text of the whole video's prompt, where the sampler's own text encoder gives it; else null.
export function promptOf(sampler) {
  const positive = source(sampler, inputOf(sampler, "positive"));
  if (positive?.comfyClass !== "CLIPTextEncode" || inputOf(positive, "text")?.link != null) return null;
  const clips = [positive, sampler].map((node) => source(node, inputOf(node, "clip")));
  const text = widgetOf(positive, "text")?.value;
  return clips[0] && clips[0] === clips[1] && typeof text === "string" ? text : null;
}

function snapshot() {
  const empty = { inputs: {}, parts: {}, takes: "", seed: null, prompt: null };
  const farms = nodesOfClass("FramePackFarm").map((sampler) => ({ ...empty, sampler, finished: new Map(), known: false }));
  const samplers = nodesOfClass("SectionSampler").flatMap((sampler) => {
    const planner = plannerOf(sampler);
    if (planner?.comfyClass !== "EndpointPlanner") return [];
    const given = parts(sampler);
    const takes = widgetOf(sampler, "takes")?.value ?? "";
    return [{ sampler, inputs: request(planner).inputs, parts: given, takes, seed: seedOf(sampler), prompt: promptOf(sampler), finished: new Map(), known: false }];
  });
  return [...samplers, ...farms];
}

const queue = api.queuePrompt.bind(api);
api.queuePrompt = async function (...values) {
  const taken = (latest = snapshot());
  const answer = await queue(...values);
  if (answer?.prompt_id) queued.set(answer.prompt_id, taken);
  while (queued.size > 16) queued.delete(queued.keys().next().value);
  return answer;
};

// A section's ids are its parent's, dots and its name; a node in a subgraph has the ids of all around it.
function runOf(detail) {
  const shown = String(detail.display_node ?? detail.node).split(":").pop();
  const taken = queued.get(detail.prompt_id) ?? latest ?? [];
  return taken.find((run) => String(run.sampler.id) === shown);
}

api.addEventListener("executed", ({ detail }) => {
  const sections = detail?.output?.framepack_sections ?? [];
  const reuse = detail?.output?.framepack_reuse;
  const run = sections.length || reuse ? runOf(detail) : null;
  if (!run) return;
  if (!run.known) {
    run.known = true;
    runs.set(run.sampler, [run, ...(runs.get(run.sampler) ?? [])].slice(0, MAX_RUNS));
  }
  for (const section of sections) run.finished.set(section.index, section);
  if (reuse) end(run, reuse.at(-1));
  for (const listener of listeners) listener(run);
});

// Sections that the host's cache held were not run: they are those of the run before.
function end(run, said) {
  run.said = said;
  const num = Math.max(0, ...[...run.finished.values()].map((section) => section.sections));
  for (let index = 0; index < num; index++) {
    const before = runsOf(run.sampler).find((old) => old !== run && old.finished.has(index));
    if (before && !run.finished.has(index)) run.finished.set(index, before.finished.get(index));
  }
}

// A sampler that the host's cache knows whole is not run.
api.addEventListener("execution_cached", ({ detail }) => {
  for (const run of queued.get(detail?.prompt_id) ?? latest ?? []) {
    if (!(detail?.nodes ?? []).map(String).includes(String(run.sampler.id))) continue;
    const same = runsOf(run.sampler).find((old) => changed(old, run.parts).length === 0 && old.takes === run.takes);
    const num = same?.finished.size ?? 0;
    if (num) run.said = `${num} of ${num} sections reused, 0 sampled`;
    if (num) for (const listener of listeners) listener({ ...same, said: run.said });
  }
});

function changed(run, now) {
  const names = new Set([...Object.keys(run.parts), ...Object.keys(now)]);
  return [...names].filter((name) => !NOT_COMPARED.includes(name) && run.parts[name] !== now[name]);
}

export const runsOf = (sampler) => (sampler && runs.get(sampler)) ?? [];
export const onRun = (listener) => listeners.add(listener);

// The runs of a sampler as the drawing route reads them.
export function earlier(sampler) {
  const now = parts(sampler);
  return runsOf(sampler).map((run) => ({
    inputs: run.inputs,
    takes: run.takes,
    seed: run.seed,
    prompt: run.prompt,
    changed: changed(run, now),
    finished: [...run.finished.values()].map((section) => [section.index, section.take]),
  }));
}
