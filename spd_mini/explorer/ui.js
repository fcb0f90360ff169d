// What the views share: elements, sliders, arrows, bars, highlighting and redraw scheduling.
// Nothing here is global: everything hangs on the explorer's own root element.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function svg(tag, props = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writing the same text again would still cost layout: write only what changed.
export function write(node, text) {
  if (node.spdText !== text) node.textContent = node.spdText = text;
}

export function style(node, name, value) {
  const text = typeof value === "number" ? value.toFixed(4) : value;
  node.spdStyle ??= {};
  if (node.spdStyle[name] !== text) node.style.setProperty(name, (node.spdStyle[name] = text));
}

export function attribute(node, name, text) {
  node.spdAttributes ??= {};
  if (node.spdAttributes[name] !== text) node.setAttribute(name, (node.spdAttributes[name] = text));
}

const minus = (text) => text.replace("-", "−");
export const fixed = (v, digits = 2) => minus((Math.abs(v) < 0.5 * 10 ** -digits ? 0 : v).toFixed(digits));
export const signed = (v) => (fixed(v).startsWith("−") ? "" : "+") + fixed(v);
export const small = (v) => (v !== 0 && Math.abs(v) < 0.001 ? minus(v.toExponential(1)) : fixed(v, 3));
export const outputName = (label) => label.replace("x", "y");
export const sub = (i) => String(i).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
export const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

// One look per subcomponent: five hues, then the same hues dashed, dotted and so on; its index is
// always written beside it, so that colour never carries the meaning alone.
const DASHES = ["none", "5 2", "1.5 1.5", "6 2 1.5 2"];
export const hue = (slot) => (slot === null ? "var(--spd-dead)" : `var(--spd-c${slot % 5})`);
export const dash = (slot) => (slot === null ? "1 2" : DASHES[Math.floor(slot / 5) % DASHES.length]);

export function button(label, onclick, props = {}) {
  return el("button", { type: "button", class: "spd-button", onclick, ...props }, label);
}

// A range input that says its name and shows its value. `aside` elements lie on the track.
export function slider({ label, min = 0, max = 1, step = 0.01, value, oninput, format = fixed, aside = [], digits }) {
  const input = el("input", { type: "range", min, max, step, value, "aria-label": label });
  const output = el("output", {}, format(value, digits));
  const track = el("span", { class: "spd-track" }, el("span", { class: "spd-rail" }), ...aside, input);
  const set = (v) => {
    const text = format(v, digits);
    if (output.spdText === text && input.spdValue === v) return;
    input.value = input.spdValue = v;
    input.setAttribute("aria-valuetext", text);
    write(output, text);
  };
  input.addEventListener("input", () => oninput(Number(input.value)));
  return { input, output, track, set };
}

export const REDUCED = matchMedia("(prefers-reduced-motion: reduce)");

// Starts an explorer in the first unused root of this name: `view(root, payload)` fills it and
// returns { draw, api }; `draw()` brings the page up to date with the state.
export function start(name, view) {
  const root = document.querySelector(`.spd-explorer[data-spd="${name}"]:not([data-redraws])`);
  if (!root) return;
  const payload = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  root.dataset.redraws = 0;
  let queued = false;
  const draw = () => {
    queued = false;
    stage.draw();
    root.dataset.redraws = Number(root.dataset.redraws) + 1;
  };
  const stage = {
    root,
    payload,
    redraw: () => {
      if (!queued) requestAnimationFrame(draw);
      queued = true;
    },
  };
  const { draw: first, ...api } = view(stage);
  stage.draw = first;
  root.spdExplorer = { ...api, draw };
  lightUp(root);
  draw();
}

// Pointing at anything with a data-key lights everything with the same key. A view may point, too:
// "spd-point" with the key as detail; it hears of every change by "spd-light".
function lightUp(root) {
  let now = null;
  const light = (key) => {
    if (key === now) return;
    for (const [value, on] of [[now, false], [key, true]])
      if (value) root.querySelectorAll(`[data-key="${value}"]`).forEach((n) => n.classList.toggle("is-lit", on));
    now = key;
    root.classList.toggle("has-lit", Boolean(key));
    root.dispatchEvent(new CustomEvent("spd-light", { detail: key }));
  };
  const keyOf = (node) => node?.closest?.("[data-key]")?.dataset.key ?? null;
  root.addEventListener("pointerover", (e) => light(keyOf(e.target)));
  root.addEventListener("pointerleave", () => light(keyOf(root.contains(document.activeElement) && document.activeElement)));
  root.addEventListener("focusin", (e) => light(keyOf(e.target)));
  root.addEventListener("focusout", () => light(null));
  root.addEventListener("spd-point", (e) => light(e.detail));
}

// Repeats `step` about eight times a second while on. With reduced motion: once a press.
export function shaker(label, step, props = {}) {
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    node.setAttribute("aria-pressed", "false");
  };
  const node = button(label, () => {
    if (timer) return stop();
    step();
    if (REDUCED.matches) return;
    node.setAttribute("aria-pressed", "true");
    timer = setInterval(() => (node.isConnected ? step() : stop()), 125);
  }, { "aria-pressed": "false", ...props });
  return { node, stop, on: () => timer !== null };
}

// A circle in `root` that is moved by coordinates; `at` turns those into places on the drawing.
function circle(root, at, props) {
  const node = svg("circle", props);
  root.append(node);
  return { node, set: (...point) => at(...point).forEach((v, k) => attribute(node, k ? "cy" : "cx", v.toFixed(1))) };
}

// A plane with origin in the middle; `reach` is the largest coordinate shown.
export function plane(label, reach, size = 220) {
  const root = svg("svg", { viewBox: `${-size / 2} ${-size / 2} ${size} ${size}`, class: "spd-plane", role: "img", "aria-label": label });
  const scale = (size / 2 - 18) / reach;
  const half = size / 2 - 4;
  root.append(svg("path", { class: "spd-axis", d: `M${-half} 0H${half}M0 ${-half}V${half}` }));
  const at = (x, y) => [x * scale, -y * scale];
  const arrow = (props) => {
    const node = svg("path", { fill: "none", ...props });
    root.append(node);
    const set = (x, y, x0 = 0, y0 = 0) => {
      const [[ax, ay], [bx, by]] = [at(x0, y0), at(x, y)];
      const length = Math.hypot(bx - ax, by - ay);
      const size = Math.min(7, length / 2);
      const [ux, uy] = length > 0.5 ? [(bx - ax) / length, (by - ay) / length] : [0, 0];
      const barb = (s) => `${(bx - size * (ux - s * 0.5 * uy)).toFixed(1)} ${(by - size * (uy + s * 0.5 * ux)).toFixed(1)}`;
      const d = `M${ax.toFixed(1)} ${ay.toFixed(1)}L${bx.toFixed(1)} ${by.toFixed(1)}M${barb(1)}L${bx.toFixed(1)} ${by.toFixed(1)}L${barb(-1)}`;
      if (node.spdPath !== d) node.setAttribute("d", (node.spdPath = d));
    };
    return { node, set };
  };
  const dot = (props) => circle(root, at, { r: 5, ...props });
  const text = (string, x, y) => {
    const [px, py] = at(x, y);
    const far = 11 / Math.max(1e-9, Math.hypot(px, py)); // a little beyond the arrow's tip
    root.append(svg("text", { x: px * (1 + far), y: py * (1 + far) + 4, "text-anchor": "middle" }, string));
  };
  return { root, arrow, dot, text };
}

// Pairs of bars: `want` in ink, `have` in the masked model's colour, numbers beside them in the
// warning colour where the two are further apart than `limit`. The bars span [low, top]. Plain: bars only.
export function bars(labels, { low = 0, top, limit = Infinity, plain = false }) {
  const span = top - low;
  const rows = labels.map((label) => {
    const [ink, mine] = ["is-target", "is-masked"].map((kind) => el("span", { class: `spd-bar ${kind}`, style: `--z:${-low / span}` }));
    const numbers = el("span", { class: "spd-numbers" });
    const both = el("span", { class: "spd-bars" }, ink, mine);
    const root = el("div", { class: "spd-row spd-out" }, ...(plain ? [both] : [el("span", { class: "spd-name" }, label), both, numbers]));
    return { root, ink, mine, numbers };
  });
  const place = (bar, v) => style(bar, "--w", Math.min(top, Math.max(low, v)) / span);
  return {
    nodes: rows.map((row) => row.root),
    set: (want, have) => rows.forEach((row, j) => {
      place(row.ink, want[j]);
      place(row.mine, have[j]);
      if (!plain) write(row.numbers, `${fixed(want[j])} | ${fixed(have[j])}`);
      row.root.classList.toggle("is-off", Math.abs(want[j] - have[j]) > limit);
    }),
  };
}

export const heads = (...names) => el("div", { class: "spd-heads", "aria-hidden": "true" }, ...names.map((name) => el("span", {}, name)));

export const panel = (title, ...children) => el("section", { class: "spd-panel", "aria-label": title }, el("h4", {}, title), ...children);

export const picture = (drawing, caption) => el("figure", {}, drawing, el("figcaption", {}, caption));

// A list of choices of which one is on: buttons, so that every choice can be read at once.
export function choices(label, names, onchoose) {
  const nodes = names.map((name, i) => button(name, () => onchoose(i), { "aria-pressed": "false" }));
  return {
    root: el("div", { class: "spd-group", role: "group", "aria-label": label }, ...nodes),
    set: (i) => nodes.forEach((node, k) => node.setAttribute("aria-pressed", String(k === i))),
  };
}

export function select(label, options, value, onchange) {
  const node = el("select", { "aria-label": label }, ...options.map(([v, text]) => el("option", { value: v }, text)));
  node.value = value;
  node.addEventListener("change", () => onchange(Number(node.value)));
  return node;
}

// A slider with its name written beside it, one of a column.
export function named(name, options) {
  const control = slider({ label: name, ...options });
  return { ...control, root: el("div", { class: "spd-row spd-in" }, el("span", { class: "spd-name" }, name), control.track, control.output) };
}

// A short piece of line, for legends.
export const lineKey = (look) => svg("svg", { viewBox: "0 0 36 8", class: "spd-key", "aria-hidden": "true" }, svg("path", { d: "M0 4H36", ...look }));

// Width for a drawing across the whole explorer, so that its text keeps its size.
export const across = (root) => Math.min(760, Math.max(300, root.clientWidth - 34));

// A plot: x in [x0, x1], y in [y0, y1], lines that can be redrawn.
export function plot(label, [x0, x1], [y0, y1], { width = 340, height = 210, yTicks = [], xTicks = [] } = {}) {
  const [left, bottom, right, top] = [34, height - 20, width - 8, 8];
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (right - left);
  const py = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "spd-plot", role: "img", "aria-label": label });
  for (const [y, text] of yTicks) root.append(svg("path", { class: "spd-axis", d: `M${left} ${py(y)}H${right}` }), svg("text", { x: left - 4, y: py(y) + 4, "text-anchor": "end" }, text));
  for (const [x, text] of xTicks) root.append(svg("text", { x: px(x), y: height - 5, "text-anchor": "middle" }, text));
  const line = (props) => {
    const node = svg("path", { fill: "none", ...props });
    root.append(node);
    // A line that leaves the plot is broken off there.
    const set = (points) => {
      let pen = "M";
      node.setAttribute("d", points.map(([x, y]) => {
        const inside = y >= y0 && y <= y1;
        const text = inside ? `${pen}${px(x).toFixed(1)} ${py(y).toFixed(1)}` : "";
        pen = inside ? "L" : "M";
        return text;
      }).join(""));
    };
    return { node, set };
  };
  const point = (props) => circle(root, (x, y) => [px(x), py(y)], { r: 4.5, ...props });
  return { root, line, point, place: (x, y) => [px(x), py(y)] };
}

// Heat map, one coloured row per subcomponent: `values` (rows × cols), shown by opacity.
export function heat(label, rows, cols, slots, keys) {
  const root = svg("svg", { viewBox: `0 0 ${cols} ${rows}`, preserveAspectRatio: "none", class: "spd-heat", role: "img", "aria-label": label });
  const lines = slots.map((slot, i) => {
    const line = svg("g", { "data-key": keys[i], style: `fill:${hue(slot)}` });
    line.append(svg("rect", { class: "spd-catch", x: 0, y: i, width: cols, height: 1 }));
    root.append(line);
    return line;
  });
  const cells = new Map();
  const set = (i, j, value) => {
    const opacity = Math.min(1, Math.abs(value));
    let cell = cells.get(i * cols + j);
    if (!cell && opacity < 0.04) return; // most cells stay empty: no element for those
    if (!cell) {
      cell = svg("rect", { x: j, y: i, width: 1, height: 1 });
      cells.set(i * cols + j, cell);
      lines[i].append(cell);
    }
    style(cell, "opacity", opacity);
  };
  const fade = (i, strength) => style(lines[i], "fill-opacity", strength); // a whole row at once
  return { root, set, fade };
}

// The last values of a number as a line, with the limit dashed: a flat line is a story too.
export function trace(label, limit, length = 90) {
  const values = [];
  const line = svg("path", { class: "spd-trace-line" });
  const root = svg("svg", { viewBox: "0 0 180 44", class: "spd-trace", role: "img", "aria-label": label, preserveAspectRatio: "none" },
    svg("path", { class: "spd-trace-limit", d: "M0 22H180" }), line);
  // Square root below, so that small errors can be seen; the limit lies half way up.
  const y = (v) => 42 - 40 * Math.min(1, 0.5 * Math.sqrt(v / limit));
  return { root, push: (value) => {
    values.push(value);
    if (values.length > length) values.shift();
    line.setAttribute("d", values.map((v, i) => `${i ? "L" : "M"}${(((length - values.length + i) / (length - 1)) * 180).toFixed(1)} ${y(v).toFixed(1)}`).join(""));
    line.classList.toggle("is-off", value > limit);
  } };
}
