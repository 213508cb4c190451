// Building and changing the page. Text from the server becomes text nodes and attributes, never markup.

/** An element: `h("td.number", {title: "…"}, "text", child, …)`; null and undefined children are left out. */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table that says to a screen reader that it is one, even where a phone shows its rows as cards. */
export function table(caption, heads, classes = "") {
  const cells = heads.map((head) => h("th", {scope: "col", role: "columnheader"}, head));
  const body = h("tbody", {role: "rowgroup"});
  const head = h("thead", {role: "rowgroup"}, h("tr", {role: "row"}, cells));
  return {body, element: h("table", {role: "table", class: classes || null}, h("caption", {}, caption), head, body)};
}

/** A row of `table`: cells are texts or elements; the first one names the row. */
export function row(heads, cells) {
  const made = cells.map((cell, i) =>
    i === 0
      ? h("th", {scope: "row", role: "rowheader"}, cell)
      : h("td", {role: "cell", "data-label": heads[i]}, cell),
  );
  return h("tr", {role: "row"}, made);
}

/** Bring an element's content to what a new one has, and touch only what differs: focus, selection and scroll stay. */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return undefined;
  }
  for (const {name} of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const {name, value} of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  return morphChildren(old, [...fresh.childNodes]);
}

/** `morph` for the children of a parent; those with `data-key` are found again wherever they stand. */
export function morphChildren(parent, fresh) {
  const keyed = new Map([...parent.children].filter((e) => e.dataset.key).map((e) => [e.dataset.key, e]));
  const wanted = new Set(fresh.map((node) => node.dataset?.key).filter(Boolean));
  for (const [key, element] of keyed) if (!wanted.has(key)) element.remove();
  fresh.forEach((node, i) => {
    const there = keyed.get(node.dataset?.key) ?? parent.childNodes[i];
    if (there && there !== parent.childNodes[i]) parent.insertBefore(there, parent.childNodes[i] ?? null);
    if (there && there.dataset?.key === node.dataset?.key) morph(there, node);
    else parent.insertBefore(node, there ?? null);
  });
  while (parent.childNodes.length > fresh.length) parent.lastChild.remove();
}

export const simulated = () => h("span.badge.simulated", {title: "not a real device: a model of one"}, "SIMULATED");
export const dash = "–";

/** Milliseconds with three significant digits. */
export function ms(value) {
  if (!Number.isFinite(value)) return dash;
  if (value === 0) return "0";
  return value.toFixed(Math.min(Math.max(2 - Math.floor(Math.log10(Math.abs(value))), 0), 6));
}

export const whole = (value) => (value ?? 0).toLocaleString("en");

/** Seconds as people say them: the two largest units would be one too many for something that ticks. */
export function ago(seconds) {
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  for (const [size, name] of units) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${name}${count === 1 ? "" : "s"} ago`;
  }
  return "just now";
}

/** A UTC time that can be read and copied. */
export function moment(iso) {
  return iso ? h("time", {datetime: iso}, iso.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC")) : dash;
}
