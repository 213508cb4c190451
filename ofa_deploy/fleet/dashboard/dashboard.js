// The dashboard: its token, its views, and the loop that keeps them fresh.
import {h, morphChildren} from "./dom.js";
import {fleet} from "./fleet.js";
import {device} from "./device.js";
import {openReport, reports} from "./reports.js";

const EVERY_MS = 3000;
const PATIENCE_MS = 10000;
const KEY = "ofa-token";

const at = (id) => document.getElementById(id);
const page = {view: null, timer: 0, turn: 0, heard: 0, away: false};

class Refused extends Error {}

/** What the server answers to a GET: JSON, or text. Throws Refused where the token does not do. */
async function fetchData(path) {
  const headers = {Authorization: `Bearer ${sessionStorage.getItem(KEY)}`};
  const answer = await fetch(path, {headers, signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store"});
  const type = answer.headers.get("Content-Type") ?? "";
  const body = type.startsWith("application/json") ? await answer.json() : await answer.text();
  if (answer.status === 401) throw new Refused("The server refuses this token. Is it of another server, or mistyped?");
  if (answer.status === 403) throw new Refused("This is a device's token; the dashboard needs the admin token.");
  if (answer.status >= 500) throw new TypeError(`it answered ${answer.status}`);
  return {ok: answer.ok, body};
}

/** The link that `serve` prints brings the token after the #; nobody should see it in the address bar. */
function takeTokenFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname);
}

function askForToken(reason) {
  clearTimeout(page.timer);
  page.turn += 1;
  sessionStorage.removeItem(KEY);
  at("view").replaceChildren();
  at("leave").hidden = true;
  at("state").textContent = "";
  tell("");
  at("refused").hidden = !reason;
  at("refused").textContent = reason ?? "";
  at("enter").hidden = false;
  at("token").value = "";
  at("token").focus();
}

/** Which view the address names, as a function that fetches its data and returns its elements. */
function route() {
  const [kind, ...rest] = location.hash.slice(1).split("/").map((part) => decodeURIComponent(part));
  if (kind === "device") return () => device(fetchData, rest[0], rest[1]);
  if (kind === "report") return () => openReport(fetchData, rest[0], rest.slice(1).join("/"));
  return async () => [...(await fleet(fetchData)), ...(await reports(fetchData))];
}

async function refresh() {
  clearTimeout(page.timer);
  const turn = ++page.turn;
  try {
    const fresh = await page.view();
    if (turn !== page.turn) return;
    if (fresh) morphChildren(at("view"), fresh);
    heard();
  } catch (error) {
    if (turn !== page.turn) return;
    if (error instanceof Refused) return askForToken(error.message);
    lost(error);
  }
  page.timer = setTimeout(refresh, EVERY_MS);
}

function heard() {
  page.heard = Date.now();
  if (page.away) tell("The server is back.", 4000);
  page.away = false;
  tick();
}

function lost(error) {
  if (!page.away) tell(`The server does not answer (${error.message}). What you see may be old; trying again.`);
  page.away = true;
  tick();
}

function tell(text, for_ms) {
  at("news").textContent = text;
  at("news").hidden = !text;
  if (for_ms) setTimeout(() => at("news").textContent === text && tell(""), for_ms);
}

function tick() {
  if (!sessionStorage.getItem(KEY) || !page.heard) return;
  const seconds = Math.round((Date.now() - page.heard) / 1000);
  at("state").className = `state ${page.away ? "away" : "live"}`;
  at("state").textContent = page.away ? `server away for ${seconds} s` : "live";
}

/** Show what the address names, from its top. */
function open() {
  if (!sessionStorage.getItem(KEY)) return askForToken();
  at("enter").hidden = true;
  at("leave").hidden = false;
  page.view = route();
  at("view").replaceChildren(h("p.quiet", {}, "Loading…"));
  window.scrollTo(0, 0);
  at("view").focus({preventScroll: true});
  return refresh();
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value.trim());
  open();
});
at("leave").addEventListener("click", () => askForToken());
window.addEventListener("hashchange", () => {
  takeTokenFromAddress();
  open();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(page.timer);
  else if (page.view && sessionStorage.getItem(KEY)) refresh();
});
setInterval(tick, 1000);

takeTokenFromAddress();
open();
