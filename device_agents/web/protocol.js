// How latency is measured: in rounds. The same as device_agents/protocol.py, which says why; here an inference is
// awaited, and the browser's garbage collector cannot be asked to wait.

import { median, relativeError, sentinelLevels, slowRounds } from "./summary.js";
import { seeded, shuffle } from "./random.js";

const ROUNDS_AT_LEAST = 3; // even when time is up: fewer say nothing about their spread
const MAX_CALLS = 100000;
const STEPS = 50;

/** The page's clock: nanoseconds, of which a browser shows only every so many. */
export const clockNs = () => performance.now() * 1e6;

/** The smallest step in nanoseconds that the clock was seen to make. */
export function timerResolutionNs(clock = clockNs) {
  let smallest = Infinity;
  for (let i = 0; i < STEPS; i++) {
    const begin = clock();
    let now = begin;
    while (now === begin) now = clock();
    smallest = Math.min(smallest, now - begin);
  }
  return smallest;
}

/** A session with the size of its bursts, and the timings that it has got: `timings[visit][burst]` in ms. */
class Series {
  static async open(session, settings, clock, resolutionNs) {
    const series = new Series();
    series.timings = [];
    series.elapsedNs = session.elapsedNs ? (calls) => session.elapsedNs(calls) : timed(session, clock);
    const callNs = Math.max(await series.warmUp(settings), 1);
    const burstNs = Math.max(settings.burst_ms * 1e6, 1000 * resolutionNs);
    series.burst = Math.min(Math.max(Math.ceil(burstNs / callNs), 1), MAX_CALLS);
    const bursts = Math.trunc((settings.visit_ms * 1e6) / (series.burst * callNs));
    series.bursts = Math.max(2, Math.min(settings.timings, bursts));
    return series;
  }

  /** Call until warm; gives the typical duration of a call in nanoseconds. */
  async warmUp(settings) {
    const durations = [];
    let spent = 0;
    while (durations.length < settings.warmup_calls || spent < settings.warmup_ms * 1e6) {
      durations.push(await this.elapsedNs(1));
      spent += durations.at(-1);
      if (durations.length >= MAX_CALLS) break;
    }
    return median(durations.slice(Math.floor(durations.length / 2)));
  }

  /** Time one series of bursts. */
  async visit() {
    const timings = [];
    for (let i = 0; i < this.bursts; i++) timings.push((await this.elapsedNs(this.burst)) / this.burst / 1e6);
    this.timings.push(timings);
  }

  /** Relative standard error over the used rounds. */
  error(used) {
    return relativeError(used.map((i) => median(this.timings[i])));
  }
}

function timed(session, clock) {
  return async (calls) => {
    const begin = clock();
    for (let i = 0; i < calls; i++) await session.run();
    return clock() - begin;
  };
}

/**
 * One measurement of a chunk: warms up, goes round until it is sure enough, and keeps every timing.
 *
 * `sessions` is a Map by item id, each with an async `run()`, or an `elapsedNs(calls)`; `sentinel` the session that
 * shows drift. Options: `clock` in nanoseconds, its `resolutionNs`, `report(progress)` after every visit, and
 * `visiting(item)` before each, with null for the sentinel.
 */
export class Rounds {
  static async open(sessions, sentinel, settings, options = {}) {
    const rounds = new Rounds();
    const { clock = clockNs, report = () => {}, visiting = () => {} } = options;
    const { resolutionNs = timerResolutionNs(clock) } = options;
    Object.assign(rounds, { settings, clock, report, visiting, errors: new Map(), series: new Map(), visits: [] });
    rounds.settled = 0;
    await rounds.warmUpAll(sessions, sentinel, resolutionNs);
    return rounds;
  }

  async warmUpAll(sessions, sentinel, resolutionNs) {
    const shareMs = (this.settings.cap_s * 1e3) / ROUNDS_AT_LEAST / Math.max(sessions.size, 1);
    const settings = { ...this.settings, visit_ms: Math.min(this.settings.visit_ms, shareMs) };
    const open = (session) => Series.open(session, settings, this.clock, resolutionNs);
    this.visiting(null);
    this.sentinel = await open(sentinel);
    let done = 0;
    for (const [item, session] of [...sessions].sort(([a], [b]) => (a < b ? -1 : 1))) {
      this.report({ phase: "warm-up", items: sessions.size, done: done++ });
      this.visiting(item);
      try {
        this.series.set(item, await open(session));
      } catch (error) {
        this.errors.set(item, failure(error));
      }
    }
  }

  /** All rounds. Gives why they ended: `settled`, `cap` or `rounds`. */
  async measure() {
    const random = seeded(this.settings.seed);
    const start = this.clock();
    for (;;) {
      const order = [...this.series.keys()].sort();
      shuffle(order, random);
      await this.round(order);
      const reason = this.reasonToStop((this.clock() - start) / 1e9);
      if (reason) return reason;
    }
  }

  async round(order) {
    const middle = Math.floor(order.length / 2);
    await this.visitSentinel();
    await this.visit(order.slice(0, middle));
    await this.visitSentinel();
    await this.visit(order.slice(middle));
    await this.visitSentinel();
    this.visits.push(this.sentinel.timings.slice(-3));
  }

  async visitSentinel() {
    this.visiting(null);
    await this.sentinel.visit();
  }

  async visit(items) {
    for (const item of items) {
      this.visiting(item);
      try {
        await this.series.get(item).visit();
      } catch (error) {
        this.errors.set(item, failure(error));
        this.series.delete(item);
      }
      this.report(this.progress());
    }
  }

  progress() {
    const { rounds_min } = this.settings;
    return { phase: "rounds", items: this.series.size, settled: this.settled, round: this.visits.length, rounds_min };
  }

  reasonToStop(elapsedS) {
    const { visits, settings } = this;
    const rounds = visits.length;
    const slow = new Set(slowRounds(sentinelLevels(visits), settings.drift));
    const clean = visits.map((_, i) => i).filter((i) => !slow.has(i));
    this.settled = [...this.series.values()].filter((series) => series.error(clean) < settings.se).length;
    const over = (elapsedS * (rounds + 1)) / rounds > settings.cap_s;
    const disturbed = slow.has(rounds - 1); // it may go away
    if ((elapsedS < settings.min_s || disturbed) && !over) return null;
    if (clean.length >= settings.rounds_min && this.settled === this.series.size) return "settled";
    if (rounds >= settings.rounds_max) return "rounds";
    return over && rounds >= ROUNDS_AT_LEAST ? "cap" : null;
  }
}

/** A failed item as a record: a crash of one model is a result, not a crash. */
export function failure(error) {
  const message = String(error?.message ?? error).split(/\s+/).join(" ").trim().slice(0, 500);
  return { reason: error?.reason ?? "failed", message: message || "it says nothing" };
}
