// ONNX Runtime Web: one session per model, as many threads as asked, random inputs, and the provider asked for or none.

import { normal, seeded } from "./random.js";

const ASSETS = "/agent/ort/";
const RUNTIMES = {
  "ort-web-wasm": { provider: "wasm", module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded" },
  "ort-web-webgpu": { provider: "webgpu", module: "ort.webgpu.min.mjs", binary: "ort-wasm-simd-threaded.asyncify" },
};
const MALFORMED = /protobuf parsing failed|invalid model|invalid graph|invalid rank|unexpected input/i;
const UNSUPPORTED = /not implemented|could not find an implementation|not registered|unsupported/i;
const MEMORY = /out of memory|bad_alloc|allocation failed|cannot enlarge memory/i;

/** This browser cannot do what is asked; `reason` is what the server is told. */
export class Refused extends Error {
  constructor(message, reason = "unsupported-op") {
    super(message);
    this.reason = reason;
  }
}

/** The runtime that a job asks for: `{condition, facts, load(bytes)}`; throws `Refused`. */
export async function openRuntime(asked, seed) {
  const known = RUNTIMES[asked.runtime];
  if (!known) throw new Refused(`a browser has no ${asked.runtime}; it has ${Object.keys(RUNTIMES).join(", ")}`);
  await checkAsked(asked, known);
  const ort = await import(ASSETS + known.module);
  const { wasm } = ort.env;
  wasm.numThreads = asked.threads;
  wasm.wasmPaths = { mjs: `${ASSETS}${known.binary}.mjs`, wasm: `${ASSETS}${known.binary}.wasm` };
  ort.env.logLevel = "error";
  const random = seeded(seed);
  return {
    condition: conditionOf(asked, ort.env.versions.web),
    facts: { graph_optimization: "all", execution_mode: "sequential", threads_used: asked.threads },
    load: (bytes) => openSession(ort, bytes, known.provider, asked.batch, random),
  };
}

async function checkAsked({ runtime, provider, precision, threads }, known) {
  if (provider !== known.provider) throw new Refused(`${runtime} has the provider ${known.provider}, not ${provider}`);
  if (precision !== "fp32") throw new Refused(`${runtime} computes in fp32, not in ${precision}`);
  if (threads > 1 && !crossOriginIsolated) {
    throw new Refused(`${threads} threads are asked for, and this page has 1: it is not cross-origin isolated (https)`);
  }
  if (threads > navigator.hardwareConcurrency) {
    throw new Refused(`${threads} threads are asked for, this device has ${navigator.hardwareConcurrency} cores`);
  }
  if (provider === "webgpu" && !(await navigator.gpu?.requestAdapter())) {
    throw new Refused("this browser has no WebGPU adapter");
  }
}

function conditionOf({ runtime, provider, precision, batch, threads }, version) {
  const asked = { runtime, provider, precision, batch, threads };
  return { ...asked, runtime_version: version, simulated: false, power_mode: "unknown" };
}

async function openSession(ort, bytes, provider, batch, random) {
  const options = { executionProviders: [provider], graphOptimizationLevel: "all", executionMode: "sequential" };
  let session;
  try {
    session = await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    throw new Refused(String(error?.message ?? error), reasonOf(error));
  }
  const feeds = Object.fromEntries(session.inputMetadata.map((input) => [input.name, feed(ort, input, batch, random)]));
  return { run: () => session.run(feeds), close: () => session.release() };
}

function reasonOf(error) {
  const text = String(error?.message ?? error);
  const found = [["malformed", MALFORMED], ["unsupported-op", UNSUPPORTED], ["out-of-memory", MEMORY]];
  return (found.find(([, pattern]) => pattern.test(text)) ?? ["failed"])[0];
}

/** One input of random numbers, since zeros would meet shortcuts that images do not; an open first side is the batch. */
function feed(ort, { name, type, shape }, batch, random) {
  if (type !== "float32") throw new Refused(`input ${name} is a ${type}`, "malformed");
  const sides = shape.map((side, i) => (i === 0 && typeof side !== "number" ? batch : side));
  if (!sides.every((side) => Number.isInteger(side) && side > 0)) {
    throw new Refused(`input ${name} has the open shape ${shape}`, "malformed");
  }
  if (sides[0] !== batch) throw new Refused(`input ${name} is for batch ${sides[0]}, asked is ${batch}`, "malformed");
  return new ort.Tensor("float32", normal(sides.reduce((a, b) => a * b, 1), random), sides);
}
