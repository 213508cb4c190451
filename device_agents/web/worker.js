// Measures one chunk in a worker, so that the page stays responsive; what hangs or crashes here, the page ends.
//
//   page to worker   {run}                    once; then {model: ArrayBuffer} or {gone: text} for each fetch
//   worker to page   {at: place}              what it is at, in items and then sentinels; -1 for none
//                    {progress: {…}}          at most once a second
//                    {fetch: sha256}          a model is needed
//                    {result} or {refused: {reason, message}}

import { failure, Rounds, timerResolutionNs } from "./protocol.js";
import { openRuntime, Refused } from "./runtime.js";

const REPORT_MS = 1000;
const COARSEST_NS = 2e6; // of a timer: 1000 steps of a coarser one are bursts that take too long to be repeated
let reported = -Infinity;
let arrived = null; // what to do with the next model

function report(progress) {
  if (performance.now() - reported < REPORT_MS) return;
  reported = performance.now();
  postMessage({ progress });
}

function fetchModel(sha256) {
  return new Promise((resolve, reject) => {
    arrived = ({ model, gone }) => (model ? resolve(new Uint8Array(model)) : reject(new Error(gone)));
    postMessage({ fetch: sha256 });
  });
}

async function loadItems(runtime, items) {
  const sessions = new Map();
  const errors = new Map();
  for (const [place, item] of items.entries()) {
    report({ phase: "loading", items: items.length, done: place });
    postMessage({ at: place });
    try {
      sessions.set(item.item, await runtime.load(await fetchModel(item.blob)));
    } catch (error) {
      errors.set(item.item, failure(error));
    }
  }
  return { sessions, errors };
}

/** The first sentinel that this runtime can run, as its place among them and its session. */
async function firstThatRuns(runtime, sentinels, offset) {
  let problem = "none was given";
  for (const [place, sentinel] of sentinels.entries()) {
    postMessage({ at: offset + place });
    try {
      const session = await runtime.load(await fetchModel(sentinel.blob));
      await session.run();
      return { place, session };
    } catch (error) {
      problem = error.message;
    }
  }
  throw new Refused(`none of ${sentinels.length} sentinels can be run: ${problem}`);
}

async function measureChunk(run) {
  const started_at = utcNow();
  const resolutionNs = timerResolutionNs();
  if (resolutionNs > COARSEST_NS) {
    throw new Refused(`this browser's timer shows only every ${resolutionNs / 1e6} ms: too coarse to measure with`);
  }
  const runtime = await openRuntime(run.runtime, run.settings.seed);
  const { sessions, errors } = await loadItems(runtime, run.items);
  const { place, session } = await firstThatRuns(runtime, run.sentinels, run.items.length);
  const places = new Map(run.items.map((item, i) => [item.item, i])).set(null, run.items.length + place);
  const visiting = (item) => postMessage({ at: places.get(item) });
  const rounds = await Rounds.open(sessions, session, run.settings, { report, visiting, resolutionNs });
  const stopped = await rounds.measure();
  const { burst } = rounds.sentinel;
  return {
    condition: runtime.condition,
    facts: { ...runtime.facts, timer_resolution_us: Number((resolutionNs / 1e3).toPrecision(4)) },
    settings: run.settings,
    started_at,
    finished_at: utcNow(),
    stopped,
    sentinel: { blob: run.sentinels[place].blob, burst, visits: rounds.visits },
    items: run.items.map(({ item }) => itemResult(item, rounds, errors)),
  };
}

function itemResult(item, rounds, errors) {
  const error = errors.get(item) ?? rounds.errors.get(item);
  if (error) return { item, error };
  const { burst, timings } = rounds.series.get(item);
  return { item, burst, timings };
}

/** The time as ISO 8601, UTC. */
function utcNow() {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

addEventListener("message", ({ data }) => {
  if (!data.run) return arrived(data);
  measureChunk(data.run).then(
    (result) => postMessage({ result }),
    (error) => postMessage({ refused: failure(error) }),
  );
});
