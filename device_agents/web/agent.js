// The page: starts and stops the agent, and shows how it is.

import { Agent, CodeNeeded } from "./loop.js";
import { Stopped } from "./server.js";
import { Store } from "./store.js";

const LOCK = "ofa-agent";
const RUNTIME = "/agent/ort/ort.wasm.min.mjs";
const PHASES = {
  loading: "Loading models",
  "warm-up": "Warming up",
  rounds: "Measuring",
  delivering: "Delivering what was measured",
  idle: "Waiting for work",
};
const element = (id) => document.getElementById(id);
let stopping = null; // AbortController of the agent that runs
let awake = null;

/** Show text in an element, which is hidden where there is none. */
function show(id, text) {
  element(id).textContent = text ?? "";
  element(id).hidden = !text;
}

/** Show how the agent is: what `Agent` tells. */
function tell({ phase, items, done, round, rounds_min, settled, away, problem }) {
  if (away !== undefined) show("away", away === null ? null : `The server does not answer (${away}); trying again.`);
  if (problem) show("problem", problem);
  if (!phase) return;
  element("phase").textContent = PHASES[phase] ?? phase;
  const share = phase === "rounds" ? round / rounds_min : done / items;
  element("bar").hidden = phase === "idle" || phase === "delivering";
  if (Number.isFinite(share)) element("bar").value = Math.min(share, 1);
  else element("bar").removeAttribute("value");
  const counted = { rounds: `round ${round} of ${rounds_min} or more, ${settled} of ${items} sure` };
  show("detail", counted[phase] ?? (items ? `${done} of ${items}` : null));
}

/** What keeps this browser from measuring as well as it could, each in a line. */
async function notices() {
  const found = [];
  const runtime = await fetch(RUNTIME, { method: "HEAD" }).catch(() => null);
  if (runtime?.status === 404) {
    found.push("The server has no ONNX Runtime Web yet. There, run: ofa-deploy agent web-assets");
  }
  if (!crossOriginIsolated) {
    found.push("This page is not cross-origin isolated, which takes https: it has 1 thread and a coarse timer.");
  }
  if (!("wakeLock" in navigator)) found.push("This browser cannot keep the screen on: please see to it yourself.");
  const lines = found.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  element("notices").replaceChildren(...lines);
}

/** Keep the screen on while the agent runs; a browser drops the lock whenever the page is hidden. */
async function keepAwake() {
  if (!stopping || document.visibilityState !== "visible") return;
  awake = await navigator.wakeLock?.request("screen").catch(() => null);
}

async function start() {
  stopping = new AbortController();
  show("problem", null);
  buttons(true);
  keepAwake();
  try {
    await alone(() => work(stopping.signal));
  } catch (error) {
    ended(error);
  } finally {
    stopping = null;
    buttons(false);
    awake?.release();
  }
}

async function work(signal) {
  const agent = new Agent(await Store.open(), tell, signal);
  element("phase").textContent = "Asking to be let in";
  show("detail", null);
  const device = await agent.enrol(location.hash.slice(1));
  history.replaceState(null, "", location.pathname); // the code is used
  element("device").textContent = device;
  await agent.loop();
}

/** Do something while no other tab does; where a page has no locks (http), there is no other way than to trust. */
async function alone(task) {
  if (!navigator.locks) return task();
  const held = await navigator.locks.query();
  if (held.held.some(({ name }) => name === LOCK)) show("detail", "Another tab may be measuring: this one waits for it.");
  return navigator.locks.request(LOCK, { signal: stopping.signal }, task);
}

function ended(error) {
  element("bar").hidden = true;
  show("detail", null);
  element("phase").textContent = "Stopped";
  show("away", null);
  if (error instanceof Stopped || error.name === "AbortError") return;
  const again = "On the server, `ofa-deploy device register NAME --profile browser` gives another link.";
  show("problem", error instanceof CodeNeeded ? `Not let in: ${error.message}. ${again}` : error.message);
}

function buttons(running) {
  element("stop").hidden = !running;
  element("start").hidden = running;
}

element("stop").addEventListener("click", () => stopping?.abort());
element("start").addEventListener("click", start);
document.addEventListener("visibilitychange", keepAwake);
addEventListener("hashchange", () => location.hash && location.reload());
notices();
start();
