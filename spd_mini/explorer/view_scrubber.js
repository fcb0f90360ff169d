// View "scrubber": training steps under a slider: arrows, importances and losses as they were then.
import { button, dash, el, heat, hue, lineKey, named, outputName, panel, picture, plane, plot, plural, REDUCED, small, write } from "./ui.js";

// Losses are told apart by dashes: the colours belong to the subcomponents.
const LINES = ["none", "7 3", "2 2", "8 2 2 2", "1 3", "11 5"];
const look = (k) => ({ style: `stroke:var(--spd-${k ? "soft" : "ink"})`, "stroke-width": k ? 1.5 : 2.2, "stroke-dasharray": LINES[k % LINES.length] });

export function view({ root, payload, redraw }) {
  const { steps, losses, layers, labels } = payload;
  const last = steps.length - 1;
  const state = { at: last };
  const go = (at) => {
    state.at = at;
    redraw();
  };
  const step = named("step", { max: last, step: 1, value: last, oninput: (at) => {
    stop();
    go(at);
  }, format: (at) => String(steps[at]) });
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    write(play, "Play");
  };
  // With reduced motion a press moves on by one snapshot and nothing runs by itself.
  const play = button("Play", () => {
    if (timer) return stop();
    go(state.at === last ? 0 : state.at + 1);
    if (REDUCED.matches) return;
    write(play, "Pause");
    timer = setInterval(() => (state.at < last && play.isConnected ? go(state.at + 1) : stop()), 180);
  });

  const names = Object.keys(losses);
  const positive = names.flatMap((name) => losses[name]).filter((v) => v > 0);
  const decade = (v) => Math.log10(Math.max(v, 1e-12));
  const [low, high] = [Math.floor(decade(Math.min(...positive))), Math.ceil(decade(Math.max(...positive)))];
  const ticks = Array.from({ length: high - low + 1 }, (_, k) => [low + k, `1e${low + k}`]);
  const chart = plot("losses over training, logarithmic", [steps[0], steps[last]], [low, Math.max(high, low + 1)], { yTicks: ticks, xTicks: [[steps[0], String(steps[0])], [steps[last], String(steps[last])]] });
  names.forEach((name, k) => chart.line(look(k)).set(steps.map((s, i) => [s, decade(losses[name][i])])));
  const cursor = chart.line({ class: "spd-line-now" });
  const values = names.map(() => el("dd"));
  const facts = el("dl", { class: "spd-facts" }, ...names.flatMap((name, k) => [el("dt", {}, lineKey(look(k)), ` ${name}`), values[k]]));
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "off" });

  const boards = layers.map((layer) => {
    const order = layer.order; // subcomponents by the feature they end up serving
    const map = heat(`causal importances of ${layer.name}: features across, subcomponents down`, order.length, labels.length, layer.slots, layer.slots.map((slot, i) => (slot === null ? `${layer.name}${i}` : `s${slot}`)));
    map.root.style.aspectRatio = "1.3";
    let board = null;
    let arrows = [];
    if (layer.columns) {
      board = plane(`subcomponents of ${layer.name} as arrows`, 1.15 * Math.max(...layer.columns.flatMap(([a, b]) => Math.hypot(a, b))));
      arrows = order.map((_, i) => board.arrow({ class: "spd-piece", "data-key": layer.slots[i] === null ? `${layer.name}${i}` : `s${layer.slots[i]}`, style: `stroke:${hue(layer.slots[i])};stroke-width:${layer.slots[i] === null ? 2 : 5}`, "stroke-dasharray": layer.slots[i] === null ? "none" : dash(layer.slots[i]) }));
      layer.columns.forEach(([a, b], j) => {
        board.arrow({ class: "spd-column" }).set(a, b);
        board.text(layer.writes ? (labels[j] ?? "") : outputName(labels[j]), a, b);
      });
    }
    const node = panel(layer.name, board ? picture(board.root, "Ink: the target. Colour: subcomponents that end up live, each at its strongest column or row. Grey: the others.") : "", picture(map.root, "Importance on each one-hot input: features across, subcomponents down."));
    return { node, set: (at) => {
      arrows.forEach((arrow, i) => arrow.set(...layer.tips[at][i]));
      layer.g[at].forEach((row, i) => row.forEach((g, j) => map.set(i, j, g / 100)));
      return layer.g[at].filter((row) => Math.max(...row) > 10).length;
    } };
  });
  root.append(
    el("div", { class: "spd-controls" }, play, el("div", { class: "spd-wide" }, step.root)),
    text,
    el("div", { class: "spd-flow" }, ...boards.map((board) => board.node), panel("losses", picture(chart.root, "Losses over training steps, logarithmic."), facts)));

  function draw() {
    step.set(state.at);
    const live = boards.map((board) => board.set(state.at));
    cursor.set([[steps[state.at], low], [steps[state.at], Math.max(high, low + 1)]]);
    names.forEach((name, k) => write(values[k], small(losses[name][state.at])));
    write(text, `Step ${steps[state.at]}: ${layers.map((layer, l) => `${layer.name} has ${plural(live[l], "live subcomponent")} of ${layer.order.length}`).join(", ")}.`);
  }
  return { draw, state };
}
