// What the agent remembers across reloads, in the browser's database: who it is, what it is at, and results that the
// server does not have yet.

const NAME = "ofa-agent";
const KEPT = "kept"; // "identity" and "run"
const RESULTS = "results"; // by run

export class Store {
  /** Open the database; an error says that the browser keeps nothing (a private window may not). */
  static async open() {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => [KEPT, RESULTS].forEach((name) => asked.result.createObjectStore(name));
    const store = new Store();
    store.database = await answer(asked);
    return store;
  }

  /** `code`, `secret`, and once enrolled `device` and `token`. */
  identity() {
    return this.do(KEPT, "readonly", (kept) => kept.get("identity"));
  }

  remember(identity) {
    return this.do(KEPT, "readwrite", (kept) => (identity ? kept.put(identity, "identity") : kept.delete("identity")));
  }

  /** The run that was being measured when the page last ended. */
  run() {
    return this.do(KEPT, "readonly", (kept) => kept.get("run"));
  }

  begin(run) {
    return this.do(KEPT, "readwrite", (kept) => kept.put(run, "run"));
  }

  endRun() {
    return this.do(KEPT, "readwrite", (kept) => kept.delete("run"));
  }

  keep(run, result) {
    return this.do(RESULTS, "readwrite", (results) => results.put(result, run));
  }

  runs() {
    return this.do(RESULTS, "readonly", (results) => results.getAllKeys());
  }

  result(run) {
    return this.do(RESULTS, "readonly", (results) => results.get(run));
  }

  drop(run) {
    return this.do(RESULTS, "readwrite", (results) => results.delete(run));
  }

  /** One request in a transaction of its own; what is written is on the disk when it is done. */
  async do(name, mode, request) {
    const transaction = this.database.transaction(name, mode, { durability: "strict" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const [found] = await Promise.all([answer(request(transaction.objectStore(name))), done]);
    return found;
  }
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
