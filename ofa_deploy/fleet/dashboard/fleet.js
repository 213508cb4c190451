// The fleet at a glance: its devices, and what they have been asked to measure.
import {ago, dash, h, moment, row, simulated, table, whole} from "./dom.js";

const DEVICES = ["Device", "Last seen", "Temperature", "Queue", "Now"];
const JOBS = ["Job", "Device", "Runtime", "State", "Items", "Asked for", "Ended"];
let filter = "";

export async function fleet(fetchData) {
  const {body} = await fetchData("/api/overview");
  return [h("h1", {}, "Fleet"), tiles(body), devices(body), jobs(body)];
}

function tiles({devices: all, active_jobs: active}) {
  const sum = (state) => all.reduce((total, one) => total + (one.queue[state] ?? 0), 0);
  const online = all.filter((one) => one.online).length;
  const figures = [
    ["Devices online", `${online} of ${all.length}`],
    ["Jobs under way", whole(active)],
    ["Items running", whole(sum("running"))],
    ["Items waiting", whole(sum("waiting"))],
  ];
  return h("dl.tiles", {}, figures.map(([name, value]) => h("div.card", {}, h("dt", {}, name), h("dd", {}, value))));
}

function devices({devices: all}) {
  const {body, element} = table("Devices, those at work first", DEVICES, "cards");
  const rank = (one) => (one.run ? 0 : one.online ? 1 : 2);
  const sorted = [...all].sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
  body.append(...sorted.map(deviceRow));
  const none = all.length ? null : h("p.empty", {}, "No device yet: ", h("code", {}, "ofa-deploy device register"));
  return h("section", {"aria-label": "Devices"}, filterLine(all.length), none ?? h("div.card.scroll", {}, element));
}

/** Hides rows as you type; the rows are there already, so that nothing has to be fetched. */
function filterLine(count) {
  const input = h("input", {type: "search", "aria-label": "Filter devices", placeholder: "Filter by name, profile, fact"});
  input.addEventListener("input", () => {
    filter = input.value.toLowerCase();
    for (const each of document.querySelectorAll("tr[data-text]")) each.hidden = !each.dataset.text.includes(filter);
  });
  return h("div.heading", {}, h("h2", {}, "Devices"), count > 8 ? input : null);
}

function deviceRow(one) {
  const cells = [
    [deviceLink(one.name), one.simulated ? simulated() : null, h("small", {}, one.profile ?? facts(one.facts))],
    lastSeen(one),
    temperatures(one.temperatures),
    queue(one.queue),
    one.run ? progress(one.run) : h("span.quiet", {}, "idle"),
  ];
  const made = row(DEVICES, cells);
  const text = [one.name, one.profile ?? "", ...Object.values(one.facts)].join(" ").toLowerCase();
  made.dataset.key = one.name;
  made.dataset.text = text;
  made.hidden = !text.includes(filter);
  return made;
}

export const deviceLink = (name) => h("a", {href: `#device/${encodeURIComponent(name)}`}, name);

function facts(known) {
  return [known.model, known.soc, known.cpu].filter(Boolean)[0] ?? dash;
}

export function lastSeen(one) {
  const away = one.revoked_at ? "revoked" : "away";
  const state = one.online ? h("span.online", {}, "● online") : h("span.offline", {}, `○ ${away}`);
  const when = one.seen_at ? ago(one.seen_s) : "never heard of";
  return [h("span.whole", {}, state, ", ", when), one.seen_at ? h("small", {}, moment(one.seen_at)) : null];
}

export function temperatures(sensors) {
  const all = Object.entries(sensors).map(([sensor, degrees]) => {
    const shown = [...new Set(degrees.map((degree) => degree.toFixed(1)))].join(" → ");
    return `${sensor ? `${sensor} ` : ""}${shown} °C`;
  });
  return all.length ? h("span.whole", {}, all.join(", ")) : dash;
}

function queue(items) {
  const states = ["waiting", "running", "done", "failed"].filter((state) => items[state] || state !== "failed");
  if (!states.some((state) => items[state])) return h("span.quiet", {}, "empty");
  return h("span.queue", {}, states.map((state) => h("span", {class: items[state] ? state : `${state} zero`}, `${whole(items[state])} ${state} `)));
}

/** What a device is doing: the phase's share as a bar, and in words. */
export function progress(run) {
  const {phase, round, rounds_min: rounds, items, done, settled} = run.progress ?? {};
  const [now, of] = phase === "rounds" ? [round, rounds] : [done, items];
  const share = of > 0 ? Math.min((now ?? 0) / of, 1) : 0;
  const words = phase === "rounds"
    ? `round ${round ?? 0} of ${round > rounds ? "more than " : ""}${rounds ?? "?"}, ${settled ?? 0} of ${items ?? "?"} settled`
    : `${phase ?? "starting"}${of ? ` ${now ?? 0} of ${of}` : ""}`;
  const bar = h("progress", {max: 1, value: share, "aria-label": `run of ${run.device}: ${words}`});
  const again = run.attempt > 1 ? `, attempt ${run.attempt}` : "";
  return h("div.progress", {}, bar, h("small", {}, `${words}; ${whole(run.items)} items${again}`));
}

function jobs({jobs: all}) {
  const {body, element} = table("The newest jobs, active ones first", JOBS, "cards");
  body.append(...all.map(jobRow));
  const shown = all.length ? h("div.card.scroll", {}, element) : h("p.empty", {}, "Nothing was asked for yet.");
  return h("section", {"aria-label": "Jobs"}, h("h2", {}, "Jobs"), shown);
}

function jobRow(job) {
  const {runtime, precision, threads} = job.runtime ?? {};
  const total = Object.values(job.items).reduce((sum, count) => sum + count, 0);
  const failed = job.items.failed ? `, ${whole(job.items.failed)} failed` : "";
  const cells = [
    h("code", {title: job.id}, job.id.slice(0, 8)),
    deviceLink(job.device),
    [runtime, precision, threads && `${threads} thread${threads === 1 ? "" : "s"}`].filter(Boolean).join(", ") || dash,
    h("span", {class: `job ${job.state}`}, job.state),
    `${whole(job.items.done)} of ${whole(total)} done${failed}`,
    moment(job.created_at),
    moment(job.finished_at),
  ];
  const made = row(JOBS, cells);
  made.dataset.key = job.id;
  return made;
}
