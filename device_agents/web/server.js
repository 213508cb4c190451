// The server, as the agent speaks with it.

/** The server does not do what was asked, and says so. */
export class ServerRefused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The server cannot be reached, or has a problem of its own that passes. */
export class ServerAway extends Error {}

/** The agent was told to end. */
export class Stopped extends Error {}

const PASSES = [408, 429, 500, 502, 503, 504];

/** The server that this page came from, with a device's token where there is one. */
export class Server {
  constructor(token, signal) {
    this.token = token;
    this.signal = signal;
  }

  /** A request with a JSON body; gives the answer as JSON, or null where there is none. */
  async call(method, path, body, options = {}) {
    const headers = { "Content-Type": "application/json" };
    const answer = await this.ask(path, { method, headers, body: JSON.stringify(body), ...options });
    return answer.status === 204 ? null : answer.json();
  }

  /** A model's bytes. */
  async blob(sha256) {
    return (await this.ask(`/api/blobs/${sha256}`, {})).arrayBuffer();
  }

  async ask(path, { headers = {}, ...options }) {
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    let answer;
    try {
      answer = await fetch(path, { cache: "no-store", signal: this.signal, ...options, headers });
    } catch (error) {
      throw this.signal?.aborted ? new Stopped() : new ServerAway(error.message);
    }
    if (answer.ok) return answer;
    const detail = (await answer.json().catch(() => ({}))).detail ?? answer.statusText;
    throw PASSES.includes(answer.status) ? new ServerAway(detail) : new ServerRefused(answer.status, detail);
  }
}
