// Latencies of blocks as a heat map: a real table, in which colour repeats what the number says.
import {h, ms, simulated} from "./dom.js";

const NAMES = {stem: "stem", head: "head", classifier: "classifier"};
const SWITCH = 0.52; // where both colours of text are equally easy to read

export function heatMap(tables, fake) {
  const values = tables.flatMap((one) => one.cells.map((cell) => cell.p50)).filter((value) => value > 0);
  const scale = {low: Math.min(...values), high: Math.max(...values)};
  return [legend(scale, fake), ...tables.map((one) => h("div.card.scroll.heat", {tabindex: 0, role: "region", "aria-label": caption(one)}, grid(one, scale)))];
}

const BLOCKS = {
  mbconv: {caption: "MBConv blocks by channels, resolution, kernel and expansion", levels: ["resolution", "kernel", "expand"]},
  uib: {caption: "Universal inverted bottlenecks by channels, resolution, kernels and expansion", levels: ["resolution", "start", "kernel", "expand"]},
};
const ENDS = {caption: "Stem, head and classifier by resolution", levels: ["resolution"]};
const stage = (kind) => ({caption: `Blocks of the kind ${kind} by channels, resolution, kernel and expansion`, levels: ["resolution", "kernel", "expand"]});
const shape = ({lines, columns}) => BLOCKS[lines[0].kind] ?? (columns[0].kernel === null ? ENDS : stage(lines[0].kind));
const caption = (one) => shape(one).caption;

/** Where a latency stands between the lowest and the highest: 0 to 1, by its logarithm. */
function heat(value, {low, high}) {
  return high > low && value > 0 ? Math.log(value / low) / Math.log(high / low) : 0;
}

function legend({low, high}, fake) {
  const marks = [0, 0.5, 1].map((share) => h("span", {}, `${ms(low * (high / low) ** share)} ms`));
  return h("div.legend", {}, h("div.ramp", {"aria-hidden": "true"}), h("div.marks", {}, marks),
    h("p.quiet", {}, "p50 of one inference in milliseconds; colours follow its logarithm. ⚑ marks a flagged row: noisy, throttled or short. ", fake ? simulated() : null));
}

function grid(one, scale) {
  const places = new Map();
  for (const cell of one.cells) {
    const place = `${cell.line},${cell.column}`;
    places.set(place, [...(places.get(place) ?? []), cell]);
  }
  const body = one.lines.map((line, i) =>
    h("tr", {}, lineHead(line), one.columns.map((_, j) => square(places.get(`${i},${j}`) ?? [], scale))),
  );
  return h("table", {}, h("caption", {}, caption(one)), h("thead", {}, heads(one)), h("tbody", {}, body));
}

/** One line of headings for the resolution, and for blocks of stages one each for their kernels and expansion. */
function heads(one) {
  const say = {
    resolution: (column) => (column.resolution ? `${column.resolution} px` : "any"),
    start: (column) => (column.start ? `k ${column.start}` : "none"),
    kernel: (column) => (column.kernel ? `k ${column.kernel}` : "none"),
    expand: (column) => `× ${column.expand}`,
  };
  const names = {resolution: "network input", start: "first kernel", kernel: "kernel", expand: "expansion"};
  const {levels} = shape(one);
  return levels.map((level, depth) => {
    const upto = levels.slice(0, depth + 1);
    const groups = [];
    for (const column of one.columns) {
      const last = groups.at(-1);
      if (last && upto.every((name) => last.column[name] === column[name])) last.span += 1;
      else groups.push({column, span: 1});
    }
    const scope = depth === levels.length - 1 ? "col" : "colgroup";
    const cells = groups.map(({column, span}) => h("th", {scope, colspan: span}, say[level](column)));
    return h("tr", {}, h("th.corner", {scope: "row"}, names[level]), cells);
  });
}

function lineHead({kind, cin, mid, cout, kernel, stride, act, se, skip, at}) {
  const channels = mid ? [cin, mid, cout] : [cin, cout];
  const size = [kernel > 1 ? `k ${kernel}` : null, stride > 1 ? `stride ${stride}` : null, at ? `${at} px in` : null];
  const more = [NAMES[kind], ...size, act, se ? "SE" : null, skip ? "skip" : null].filter(Boolean).join(", ");
  return h("th", {scope: "row"}, channels.join(" → "), h("small", {}, more));
}

function square(cells, scale) {
  const [first] = cells;
  if (!first) return h("td.none", {});
  const share = heat(first.p50, scale);
  const texts = cells.map((cell) => h("span", {title: title(cell)}, ms(cell.p50), mark(cell.flags)));
  const made = h("td", {class: share < SWITCH ? "cool" : "hot"}, texts);
  made.style.setProperty("--heat", `${(100 * share).toFixed(1)}%`);
  return made;
}

function title({key, p50, p90, p99, se, n, flags, measured_at: when}) {
  const flagged = flags?.length ? `\nflagged: ${flags.join(", ")}` : "";
  return `${key}\np50 ${ms(p50)} ms ± ${(100 * se).toFixed(1)} %, p90 ${ms(p90)}, p99 ${ms(p99)}, ${n} timings\n${when}${flagged}`;
}

function mark(flags) {
  return flags?.length ? h("span.flag", {}, "⚑", h("span.hidden", {}, ` flagged: ${flags.join(", ")}`)) : null;
}
