// View "columns": which columns of the first weight matrix an input uses.
import * as M from "./model.js";
import { bars, button, el, heads, hue, named, panel, picture, plane, plural, style, svg, write } from "./ui.js";

export function view({ root, payload, redraw }) {
  const model = M.build(payload);
  const { min, max, value: home } = payload.input;
  const { W: [W], d_in, d_out } = model.layers[0];
  const random = M.generator(payload.seed);
  const state = { x: Float64Array.from(home) };
  const set = (values) => {
    state.x.set(values);
    redraw();
  };
  // A sparse input as in the data, but never empty: one feature surely, others rarely.
  const sparse = () => {
    const sure = Math.floor(random() * d_in);
    set(Array.from(home, (_, j) => (j === sure || random() < 0.15 ? 0.2 + 0.8 * random() * max : 0)));
  };
  const inputs = payload.labels.map((name, j) => named(name, { min, max, value: home[j], oninput: (v) => set(state.x.map((old, k) => (k === j ? v : old))) }));
  inputs.forEach((row, j) => {
    row.root.dataset.key = `s${j}`;
    row.root.style.setProperty("--hue", hue(j));
  });

  // The matrix itself, entry by entry; a column lights up in its colour when its feature is on.
  const largest = Math.max(...W.map(Math.abs));
  const matrix = svg("svg", { viewBox: `0 0 ${d_in} ${d_out}`, class: "spd-matrix", role: "img", "aria-label": "entries of the weight matrix, used columns in colour", preserveAspectRatio: "none" });
  const columns = Array.from({ length: d_in }, (_, j) => {
    const group = svg("g", { "data-key": `s${j}` });
    for (let i = 0; i < d_out; i++) group.append(svg("rect", { class: "spd-cell", x: j + 0.03, y: i + 0.03, width: 0.94, height: 0.94, opacity: 0.2 + (0.8 * Math.abs(W[i * d_in + j])) / largest }));
    matrix.append(group);
    return group;
  });

  // In two dimensions: columns as arrows, the pieces x_j W_j laid tip to tail, and their sum.
  let board = null;
  if (d_out === 2) {
    const reach = 1.35 * Math.max(...Array.from({ length: d_in }, (_, j) => Math.hypot(W[j], W[d_in + j])));
    board = plane("columns of the weight matrix, and the hidden vector as the sum of the used ones", reach, 260);
    board.ink = Array.from({ length: d_in }, (_, j) => {
      const arrow = board.arrow({ class: "spd-column", "data-key": `s${j}` });
      arrow.set(W[j], W[d_in + j]);
      board.text(payload.labels[j].replace("x", "W"), W[j], W[d_in + j]);
      return arrow;
    });
    board.pieces = columns.map((_, j) => board.arrow({ class: "spd-piece", "data-key": `s${j}`, style: `stroke:${hue(j)}` }));
    board.sum = board.dot({ class: "spd-dot is-masked", r: 5 });
  }
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });
  const out = bars(payload.labels, { top: max * 1.15 });
  root.classList.toggle("is-dense", d_in > 12);
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-group" }, button("Draw a sparse input", sparse), button("All features on", () => set(home.map(() => 0.75 * max))), button("Reset", () => set(home)))),
    text,
    el("div", { class: "spd-flow" },
      panel("input", heads("", "value"), el("div", { class: "spd-rows" }, ...inputs.map((row) => row.root))),
      panel(`columns of ${model.layers[0].label}`, board ? board.root : "", picture(matrix, `The ${d_out} × ${d_in} entries of the matrix. In colour: the columns that this input uses.${board ? " Above: the pieces laid tip to tail end at the hidden vector (dot)." : ""}`)),
      panel("output", heads("", "", "input | output"), el("div", { class: "spd-rows" }, ...out.nodes))));

  function draw() {
    const ideal = M.target(model, state.x);
    inputs.forEach((row, j) => row.set(state.x[j]));
    const used = payload.labels.filter((_, j) => state.x[j] > 0);
    const share = Math.round((100 * used.length) / d_in);
    write(text, `${plural(used.length, "column")} of ${d_in} used${used.length && used.length <= 6 ? ` (${used.map((name) => name.replace("x", "W")).join(", ")})` : ""}: ${used.length * d_out} of the matrix's ${d_in * d_out} entries, ${share} %. The other ${100 - share} % take no part in this computation: whatever they held, the output would be the same.`);
    let [x, y] = [0, 0];
    columns.forEach((group, j) => {
      const on = state.x[j] > 0;
      style(group, "--hue", on ? hue(j) : "var(--spd-rule)");
      if (!board) return;
      board.pieces[j].node.style.visibility = on ? "visible" : "hidden";
      style(board.ink[j].node, "opacity", on ? 1 : 0.35);
      const [nx, ny] = [x + state.x[j] * W[j], y + state.x[j] * W[d_in + j]];
      board.pieces[j].set(nx, ny, x, y);
      [x, y] = [nx, ny];
    });
    board?.sum.set(x, y);
    out.set(state.x, ideal.output);
  }
  return { draw, state, forward: ({ x }) => M.target(model, x) };
}
