// View "contributions": what each neuron adds to each output, in the model and by subcomponents.
import * as M from "./model.js";
import { across, button, choices, el, fixed, hue, named, outputName, plot, plural, signed, svg, write } from "./ui.js";

const SEEN = 0.03; // marks smaller than this share of the largest are left out

export function view({ root, payload, redraw }) {
  const { labels, cases } = payload;
  const n = labels.length;
  const data = cases.map((one) => one.layers.map((layer) => ({
    ...layer,
    model: M.decode(layer.model, n * layer.neurons),
    best: M.decode(layer.best, n * layer.neurons),
    serves: layer.chosen.map((c) => layer.chosen.filter((other) => other === c).length),
  })));
  const layers = data[0];
  const neurons = layers.flatMap((layer, l) => Array.from({ length: layer.neurons }, (_, j) => [l, j]));
  const keyOf = ([l, j]) => `n${l}-${j}`;
  const state = { which: 0, first: 0, count: n, neuron: -1 };
  let lit = null;
  const change = (values) => {
    Object.assign(state, values);
    state.first = Math.min(state.first, n - state.count);
    redraw();
  };
  const [low, high] = data.flat().flatMap((layer) => [layer.model, layer.best]).reduce(([a, b], values) => values.reduce(([p, q], v) => [Math.min(p, v), Math.max(q, v)], [a, b]), [0, 0]);
  const width = across(root);
  const seen = SEEN * Math.max(-low, high);

  // --- controls ------------------------------------------------------------------------------
  const tabs = choices("decompositions", cases.map((one) => one.label), (which) => change({ which }));
  const first = named("from", { max: n - 1, step: 1, value: 0, oninput: (v) => change({ first: v, count: Math.min(state.count, n - v) }), format: (v) => labels[v] });
  const count = named("features", { min: 1, max: n, step: 1, value: n, oninput: (v) => change({ count: v }), format: String });
  const neuron = named("neuron", { min: -1, max: neurons.length - 1, step: 1, value: -1, oninput: (v) => {
    change({ neuron: v });
    point();
  }, format: (v) => (v < 0 ? "none" : `${layers.length > 1 ? `${neurons[v][0]}: ` : ""}${neurons[v][1]}`) });
  const point = () => root.dispatchEvent(new CustomEvent("spd-point", { detail: state.neuron < 0 ? null : keyOf(neurons[state.neuron]) }));
  const reset = button("Reset", () => {
    change({ which: 0, first: 0, count: n, neuron: -1 });
    point();
  });
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });
  const hand = el("p", { class: "spd-hand" });

  // --- one pair of strips a layer: the model in ink, its subcomponents in their colours ---------
  // A mark is a line of no length with round ends; a neuron has one path for each colour.
  function strip(label, layer, l, inks) {
    const board = plot(label, [0, 1], [low, high], { width, height: 130, yTicks: [[0, "0"], [high, fixed(high, 1)]] });
    const ticks = svg("g");
    const groups = Array.from({ length: layer.neurons }, (_, j) => {
      const paths = inks.map((ink) => svg("path", { style: `stroke:${ink}` }));
      board.root.append(svg("g", { class: "spd-marks", "data-key": keyOf([l, j]) }, ...paths));
      return paths;
    });
    board.root.append(ticks);
    const at = (i, v) => board.place((i - state.first + 0.5) / state.count, v).map((p) => p.toFixed(1)).join(" ");
    const window = () => Array.from({ length: state.count }, (_, k) => state.first + k);
    return { root: board.root, set: (values, inkOf, namesOf) => {
      groups.forEach((paths, j) => {
        const d = paths.map(() => "");
        for (const i of window()) if (Math.abs(values[i * layer.neurons + j]) >= seen) d[inkOf(i)] += `M${at(i, values[i * layer.neurons + j])}h0`;
        paths.forEach((path, k) => path.setAttribute("d", d[k]));
      });
      const every = Math.ceil((30 * state.count) / width); // where not all are named, every so-manieth
      const named = window().filter((_, k) => k % every === 0);
      ticks.replaceChildren(...named.map((i) => svg("text", { x: board.place((i - state.first + 0.5) / state.count, 0)[0], y: 126, "text-anchor": "middle" }, namesOf(i))));
      root.style.setProperty("--mark", `${Math.min(7, Math.max(2.5, (0.3 * width) / state.count))}px`);
    } };
  }
  const boards = layers.map((layer, l) => {
    const model = strip(`neuron contributions of the model, ${layer.name}`, layer, l, ["var(--spd-ink)"]);
    const best = strip(`neuron contributions of the best subcomponents, ${layer.name}`, layer, l, [0, 1, 2, 3, 4].map(hue));
    const facts = el("small");
    const node = el("section", { class: "spd-panel", "aria-label": layer.name },
      el("h4", {}, layer.name, " ", facts),
      el("figure", {}, model.root, el("figcaption", {}, "Model: a mark for every neuron that adds something to the output of a feature, per unit of its input.")),
      el("figure", {}, best.root, el("figcaption", {}, "The best subcomponent of each feature: the same marks, in its colour, its number below.")));
    return { node, set: () => {
      const own = data[state.which][l];
      const order = [...new Set(own.chosen)];
      model.set(own.model, () => 0, (i) => outputName(labels[i]));
      best.set(own.best, (i) => order.indexOf(own.chosen[i]) % 5, (i) => String(own.chosen[i]));
      const shared = own.serves.filter((times) => times > 1).length;
      write(facts, shared ? `${plural(shared, "feature")} of ${n} share their best subcomponent with another` : `each of the ${n} features has a best subcomponent of its own`);
    } };
  });
  root.append(
    el("div", { class: "spd-controls" }, tabs.root, reset),
    el("div", { class: "spd-brush" }, first.root, count.root, neuron.root),
    text, ...boards.map((board) => board.node), hand);

  // What the neuron pointed at adds, largest first.
  function tell() {
    const found = neurons.find((one) => keyOf(one) === lit);
    if (!found) return write(hand, "Point at a mark, or choose a neuron, to see it everywhere.");
    const [l, j] = found;
    const own = data[state.which][l];
    const top = [...labels.keys()].map((i) => [own.model[i * own.neurons + j], i]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, 4);
    write(hand, `Neuron ${j} of ${own.name} adds most to ${top.map(([v, i]) => `${outputName(labels[i])} ${signed(v)} (by subcomponent ${own.chosen[i]}: ${signed(own.best[i * own.neurons + j])})`).join(", ")}`);
  }
  root.addEventListener("spd-light", (e) => {
    if (e.detail === null && state.neuron >= 0) return point(); // the chosen one stays lit
    lit = e.detail;
    tell();
  });

  let drawn = "";
  function draw() {
    tabs.set(state.which);
    first.set(state.first);
    count.set(state.count);
    neuron.set(state.neuron);
    const wanted = [state.which, state.first, state.count].join();
    if (wanted !== drawn) boards.forEach((board) => board.set());
    drawn = wanted;
    const one = cases[state.which];
    write(text, `${one.label}: r ${fixed(one.r, 3)}, slope ${fixed(one.slope)}, subcomponents against model over all marks. Live: ${one.live.map(([name, live, C]) => `${name} ${live} of ${C}`).join(", ")}.`);
    tell();
  }
  return { draw, state, data };
}
