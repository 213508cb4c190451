// Measuring a chunk in a worker of its own, with limits, and again without the item that broke it.

import { Stopped } from "./server.js";

const RESTARTS = 5;
const STALL_SHARE = 0.25; // of the run's time, after which a single item is taken to hang
const POLL_MS = 1000;

/** The chunk could not be measured; `reason` is what the server is told. */
export class ChunkFailed extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

/** The worker is of no use any more, because of what it was at. */
class Crashed extends ChunkFailed {
  constructor(reason, message, place) {
    super(reason, message);
    this.place = place;
  }
}

/**
 * The result of a run, as the server expects it. An item that crashes or hangs gets an error, and all others are
 * measured without it. `models(sha256)` gives a model's bytes; `report(progress)` is called about every second;
 * `signal` ends it with `Stopped`, or with the error that it was aborted with.
 */
export async function measure(run, { models, report, signal }) {
  const end = performance.now() + 1000 * run.run_s;
  const errors = new Map();
  let tried = run;
  let last;
  for (let i = 0; i <= RESTARTS; i++) {
    try {
      return inOrder(run, await attempt(tried, end, { models, report, signal }), errors);
    } catch (error) {
      if (!(error instanceof Crashed)) throw error;
      last = error;
      tried = withoutCulprit(tried, error, errors);
    }
  }
  throw new ChunkFailed(last.reason, `${RESTARTS + 1} of its models broke the runtime, the last: ${last.message}`);
}

function withoutCulprit(run, { place, reason, message }, errors) {
  if (place < 0) throw new ChunkFailed(reason, message);
  const items = run.items.filter((_, i) => i !== place);
  const sentinels = run.sentinels.filter((_, i) => run.items.length + i !== place);
  if (place < run.items.length) errors.set(run.items[place].item, { reason, message });
  return { ...run, items, sentinels };
}

function inOrder(run, result, errors) {
  const found = new Map(result.items.map((item) => [item.item, item]));
  const items = run.items.map(({ item }) => found.get(item) ?? { item, error: errors.get(item) });
  return { ...result, items };
}

function attempt(run, end, { models, report, signal }) {
  const worker = new Worker("/agent/worker.js", { type: "module" });
  const stallMs = 1000 * STALL_SHARE * run.run_s;
  let place = -1;
  let moved = performance.now();
  let poll;
  const done = new Promise((resolve, reject) => {
    const give = async (sha256) => {
      try {
        const model = await models(sha256);
        worker.postMessage({ model }, [model]);
      } catch (error) {
        reject(error);
      }
      moved = performance.now(); // the time that it took to get it does not count
    };
    worker.onmessage = ({ data }) => {
      if ("at" in data) [place, moved] = [data.at, performance.now()];
      else if (data.fetch) give(data.fetch);
      else if (data.progress) report(data.progress);
      else if (data.result) resolve(data.result);
      else if (data.refused) reject(new ChunkFailed(data.refused.reason, data.refused.message));
    };
    worker.onmessageerror = () => reject(new Crashed("failed", "the worker garbles what it says", place));
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Crashed("failed", `the runtime crashed: ${event.message ?? "its worker did not start"}`, place));
    };
    poll = setInterval(() => {
      const now = performance.now();
      if (now > end) reject(new ChunkFailed("timeout", "the run took longer than it may"));
      const quiet = now - moved;
      if (quiet > stallMs) {
        reject(new Crashed("timeout", `the runtime hangs: nothing for ${Math.round(quiet / 1000)} s`, place));
      }
    }, POLL_MS);
    signal.onabort = () => reject(signal.reason instanceof Error ? signal.reason : new Stopped());
    worker.postMessage({ run });
  });
  return done.finally(() => {
    clearInterval(poll);
    worker.terminate();
  });
}
