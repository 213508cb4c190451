// The agent's loop: deliver what is measured, ask the server for work, have it measured, forever.

import { deviceFacts, deviceState } from "./facts.js";
import { ChunkFailed, measure } from "./measuring.js";
import { Server, ServerAway, ServerRefused, Stopped } from "./server.js";

const CLAIM_WAIT_S = 20; // how long the server may keep an idle agent's question open
const BACKOFF_MS = [500, 30000];
const BEAT_MS = 1000;
const NOT_YOURS = [401, 403, 404, 409];

/** No code, or one that the server does not accept: a person must do something. */
export class CodeNeeded extends Error {}

/** One device's agent. `store` is what it remembers, `tell(state)` shows how it is, `signal` ends it. */
export class Agent {
  constructor(store, tell, signal) {
    this.store = store;
    this.tell = tell;
    this.signal = signal;
    this.away = false;
  }

  /**
   * Become a device by a code, or be the one that this browser was. The secret is stored before the server is asked:
   * a lost answer costs nothing, as the same code with the same secret is answered in the same way again.
   */
  async enrol(code) {
    const former = await this.store.identity();
    let known = former ?? {};
    if (code && code !== known.code) known = { code, secret: newSecret() };
    if (!known.code) throw new CodeNeeded("this link has no code");
    await this.store.remember(known);
    if (!known.token) known = await this.tradeCode(known, former);
    this.server = new Server(known.token, this.signal);
    return known.device;
  }

  async tradeCode(known, former) {
    const body = { code: known.code, secret: known.secret, facts: await deviceFacts() };
    try {
      const answer = await this.persist(() => new Server(null, this.signal).call("POST", "/api/enroll", body));
      const enrolled = { ...known, device: answer.device, token: answer.token };
      await this.store.remember(enrolled);
      return enrolled;
    } catch (error) {
      if (!(error instanceof ServerRefused)) throw error;
      await this.store.remember(former); // a wrong code does not cost the token that there was
      throw new CodeNeeded(error.status === 422 ? "this is no code" : error.message);
    }
  }

  /** Work until stopped; a token that is not accepted any more is `CodeNeeded`. */
  async loop() {
    try {
      for (;;) {
        await this.deliver();
        this.tell({ phase: "idle" });
        const work = await this.persist(() => this.claim());
        if (work) await this.work(work);
        else await this.store.endRun();
      }
    } catch (error) {
      if (error instanceof ServerRefused && error.status === 401) {
        throw new CodeNeeded("the server does not accept this device's token any more");
      }
      throw error;
    }
  }

  async claim() {
    const facts = { ...(await deviceFacts()), ...(await deviceState()) };
    const run = (await this.store.run()) ?? null;
    const wait_s = this.away ? 0 : CLAIM_WAIT_S; // a server that is back is seen at once
    try {
      return await this.server.call("POST", "/api/claim", { facts, wait_s, queue: "", run });
    } catch (error) {
      const final = error instanceof ServerRefused && [401, 403].includes(error.status);
      if (final || !(error instanceof ServerRefused)) throw error;
      throw new ServerAway(error.message); // another version, or a proxy that is being set up
    }
  }

  async work(work) {
    const path = `/api/runs/${work.run}`;
    await this.store.begin(work.run);
    try {
      await this.store.keep(work.run, await this.measured(work, path));
    } catch (error) {
      if (error instanceof ServerRefused) this.checkToken(error);
      else await this.handBack(path, error);
      if (error instanceof Stopped) throw error;
    } finally {
      await this.store.endRun();
    }
  }

  async measured(work, path) {
    const before = await deviceState();
    const lost = new AbortController(); // the run is another's now
    const signal = AbortSignal.any([this.signal, lost.signal]);
    const report = this.heart(path, (refusal) => lost.abort(refusal));
    const quiet = setInterval(report, (1000 * work.lease_s) / 4);
    try {
      const models = (sha256) => this.persist(() => this.server.blob(sha256));
      const result = await measure(work, { models, report, signal });
      const facts = { ...(await deviceFacts()), ...startAndEnd(before, await deviceState()), ...result.facts };
      return { ...result, facts };
    } finally {
      clearInterval(quiet);
    }
  }

  /** A function that tells the page, and the server now and then; a page in the background still gets messages. */
  heart(path, refused) {
    let progress = { phase: "loading" };
    let told = -Infinity;
    return async (news = progress) => {
      progress = news;
      this.tell({ ...progress, path });
      if (performance.now() - told < BEAT_MS) return;
      told = performance.now();
      try {
        await this.server.call("POST", `${path}/progress`, progress);
      } catch (error) {
        if (error instanceof ServerRefused && NOT_YOURS.includes(error.status)) refused(error);
      }
    };
  }

  /** Give the server every result that it does not have yet. */
  async deliver() {
    for (const run of await this.store.runs()) {
      this.tell({ phase: "delivering" });
      const result = await this.store.result(run);
      try {
        await this.persist(() => this.server.call("POST", `/api/runs/${run}/result`, result));
      } catch (error) {
        if (!(error instanceof ServerRefused)) throw error;
        this.checkToken(error);
        this.tell({ problem: `the server does not take the result: ${error.message}` });
        const failed = new ChunkFailed("malformed", error.message);
        if (!NOT_YOURS.includes(error.status)) await this.handBack(`/api/runs/${run}`, failed);
      }
      await this.store.drop(run);
      if ((await this.store.run()) === run) await this.store.endRun();
    }
  }

  checkToken(error) {
    if (error.status === 401) throw error;
  }

  async handBack(path, error) {
    const stopped = error instanceof Stopped;
    const reason = stopped ? "worker-shutdown" : (error.reason ?? "failed");
    const message = (stopped ? "the page was told to stop" : String(error.message)).slice(0, 500);
    if (!stopped) this.tell({ problem: `this work could not be done: ${message}` });
    const server = new Server(this.server.token, AbortSignal.timeout(5000));
    await server.call("POST", `${path}/failure`, { reason, message }).catch(() => {}); // its lease ends by itself
  }

  /** Repeat a request until the server answers, ever more rarely while it is away. */
  async persist(request) {
    let [pause, longest] = BACKOFF_MS;
    for (;;) {
      if (this.signal.aborted) throw new Stopped();
      try {
        const answer = await request();
        this.away = false;
        this.tell({ away: null });
        return answer;
      } catch (error) {
        if (!(error instanceof ServerAway)) throw error;
        this.away = true;
        this.tell({ away: error.message });
        await this.sleep(pause * (0.5 + Math.random() / 2)); // not all agents at once when it is back
        pause = Math.min(2 * pause, longest);
      }
    }
  }

  sleep(ms) {
    return new Promise((resolve) => {
      setTimeout(resolve, ms);
      this.signal.addEventListener("abort", resolve, { once: true });
    });
  }
}

/** 32 random bytes, URL-safe. */
function newSecret() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Every reading as it was when the run began and when its rounds ended. */
function startAndEnd(before, after) {
  return Object.fromEntries(Object.entries(before).map(([key, value]) => [key, [value, after[key] ?? null]]));
}
