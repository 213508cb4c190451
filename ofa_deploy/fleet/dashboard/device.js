// One device: what it is, what it is doing, and its latency table as a heat map.
import {dash, h, moment, ms, row, simulated, table} from "./dom.js";
import {lastSeen, progress, temperatures} from "./fleet.js";
import {heatMap} from "./heatmap.js";

const NETWORKS = ["Network", "Resolution", "p50", "p90", "p99", "Timings", "Measured"];

export async function device(fetchData, name, condition) {
  const asked = `/api/devices/${encodeURIComponent(name)}/table${condition ? `?condition=${encodeURIComponent(condition)}` : ""}`;
  const [{body: overview}, {ok, body: measured}] = await Promise.all([fetchData("/api/overview"), fetchData(asked)]);
  const one = overview.devices.find((each) => each.name === name);
  const fake = ok ? measured.condition.condition.simulated : one?.simulated;
  return [
    h("p", {}, h("a", {href: "#"}, "← Fleet")),
    h("h1", {}, name),
    fake ? h("p.banner", {}, "SIMULATED. These are a model's numbers; no such device was measured.") : null,
    one ? about(one) : h("p.empty", {}, `${name} is not registered here.`),
    ...(ok ? latencies(name, measured) : [h("p.empty", {}, measured.detail ?? "Nothing was measured on it yet.")]),
    one ? factList(one.facts) : null,
  ].filter(Boolean);
}

function about(one) {
  const pairs = [
    ["Last seen", lastSeen(one)],
    ["Profile", one.profile ?? dash],
    ["Temperature", temperatures(one.temperatures)],
    ["Now", one.run ? progress(one.run) : "idle"],
  ];
  return h("dl.tiles", {}, pairs.map(([name, value]) => h("div.card", {}, h("dt", {}, name), h("dd.plain", {}, value))));
}

function latencies(name, {condition, conditions, blocks, networks}) {
  return [
    conditionTable(name, condition, conditions),
    h("h2", {}, "Blocks"),
    ...(blocks.tables.length ? heatMap(blocks.tables, condition.condition.simulated) : []),
    blocks.tables.length ? null : h("p.empty", {}, "No block was measured under this condition."),
    blocks.others.length ? otherBlocks(blocks.others) : null,
    h("h2", {}, "Whole networks"),
    networks.length ? networkTable(networks) : h("p.empty", {}, "None was measured under this condition."),
  ];
}

/** Every condition that the device was measured under; rows of different ones never mix. */
function conditionTable(name, shown, all) {
  const heads = ["Runtime", "Precision", "Batch", "Threads", "Power mode", "Records", "Newest"];
  const {body, element} = table("Conditions: what the device was measured under. The table below is of the marked one", heads, "cards");
  for (const {hash, condition: c, records, measured_at: newest} of all) {
    const here = hash === shown.hash;
    const words = [c.runtime, c.runtime_version, c.provider].filter(Boolean).join(" ");
    const link = h("a", {href: `#device/${encodeURIComponent(name)}/${hash}`, "aria-current": here ? "true" : null}, words);
    const first = [here ? "▸ " : "", link, c.simulated ? simulated() : null];
    const made = row(heads, [first, c.precision, c.batch, c.threads, c.power_mode ?? "unknown", records, moment(newest)].map(text));
    made.dataset.key = hash;
    body.append(made);
  }
  return h("section", {"aria-label": "Conditions"}, h("h2", {}, "Conditions"), h("div.card.scroll", {}, element));
}

const text = (value) => (typeof value === "number" ? String(value) : value ?? dash);

function networkTable(networks) {
  const {body, element} = table("Whole networks, the fastest first; milliseconds", NETWORKS, "cards");
  for (const network of networks) {
    const arch = network.arch ?? {};
    const depths = Array.isArray(arch.depths) ? h("small", {}, `depths ${arch.depths.join(" ")}`) : null;
    const made = row(NETWORKS, [
      [h("code", {title: network.key}, network.key.slice(0, 12)), flags(network.flags), depths],
      arch.resolution ? `${arch.resolution} px` : dash,
      h("b", {}, ms(network.p50), h("small", {}, `± ${(100 * network.se).toFixed(1)} %`)),
      ms(network.p90),
      ms(network.p99),
      text(network.n),
      moment(network.measured_at),
    ]);
    made.dataset.key = network.key;
    body.append(made);
  }
  return h("div.card.scroll", {}, element);
}

function otherBlocks(rows) {
  const heads = ["Block", "p50", "p90", "p99"];
  const {body, element} = table("Blocks of other kinds; milliseconds", heads, "cards");
  body.append(...rows.map((one) => row(heads, [[one.key, flags(one.flags)], ms(one.p50), ms(one.p90), ms(one.p99)])));
  return h("div.card.scroll", {}, element);
}

const flags = (all) => (all?.length ? h("span.flag", {}, ` ⚑ ${all.join(", ")}`) : null);

function factList(facts) {
  const pairs = Object.entries(facts).map(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value)]);
  const list = pairs.length ? h("dl.facts.card", {}, pairs) : h("p.empty", {}, "It told none.");
  return h("section", {"aria-label": "Facts"}, h("h2", {}, "What the device says of itself"), list);
}
