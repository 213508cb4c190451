// Audits and bundles: a list, and each one's report in a frame that can do nothing but be read.
import {dash, h, moment, row, simulated, table} from "./dom.js";

const HEADS = ["Report", "Kind", "Target", "Verdict", "Written"];
const ONE = {audits: "audit", bundles: "bundle"};
const path = ({kind, path: name}) => `${kind}/${name.split("/").map(encodeURIComponent).join("/")}`;
const opened = {path: null, url: null};
const EVERY_MS = 15000; // reports come seldom, and listing them reads files
const listed = {at: -Infinity, all: []};

export async function reports(fetchData) {
  if (performance.now() - listed.at > EVERY_MS) {
    Object.assign(listed, {all: (await fetchData("/api/reports")).body, at: performance.now()});
  }
  const {all} = listed;
  const {body, element} = table("Audits and bundles in the server's workspace, newest first", HEADS, "cards");
  body.append(...all.map(reportRow));
  const how = h("p.empty", {}, "None yet: ", h("code", {}, "ofa-deploy audit"), " and ", h("code", {}, "ofa-deploy extract"));
  const shown = all.length ? h("div.card.scroll", {}, element) : how;
  return [h("section", {"aria-label": "Reports"}, h("h2", {}, "Audits and bundles"), shown)];
}

function reportRow(report) {
  const name = h("a", {href: `#report/${path(report)}`}, report.path);
  const cells = [
    [name, report.simulated ? simulated() : null],
    ONE[report.kind] ?? report.kind,
    report.target ?? dash,
    report.verdict ?? dash,
    moment(report.changed_at),
  ];
  const made = row(HEADS, cells);
  made.dataset.key = path(report);
  return made;
}

/** The view of one report. It is fetched once: a report does not change while it is read. */
export async function openReport(fetchData, kind, name) {
  const wanted = path({kind, path: name});
  if (opened.path === wanted && document.querySelector("iframe.report")) return null;
  const {ok, body} = await fetchData(`/api/reports/${wanted}`);
  const back = h("p", {}, h("a", {href: "#"}, "← Fleet"));
  if (!ok) return [back, h("p.empty", {}, body.detail ?? "There is no such report.")];
  if (opened.url) URL.revokeObjectURL(opened.url);
  Object.assign(opened, {path: wanted, url: URL.createObjectURL(new Blob([body], {type: "text/html;charset=utf-8"}))});
  const title = `${ONE[kind] ?? kind} ${name}`;
  return [back, h("h1", {}, title), h("iframe.report", {sandbox: true, title, src: opened.url})];
}
