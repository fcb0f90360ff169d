// View "gate": importance as a function of the inner activation, and the mask it allows.
import * as M from "./model.js";
import { button, el, fixed, hue, lineKey, named, panel, plot, select, shaker, style, write } from "./ui.js";

const look = (colour, width, pattern = "none", opacity = 1) => ({ style: `stroke:var(--spd-${colour})`, "stroke-width": width, "stroke-dasharray": pattern, opacity });
const CURVES = [
  ["g, the importance: γ cut off at 0 and 1", look("edge", 7, "none", 0.45), M.clamp01],
  ["γ, what the importance function puts out", look("ink", 1.5, "1.5 2.5"), (z) => z],
  ["lower-leaky, makes the masks in training", look("masked", 2.2), M.lowerLeaky],
  ["upper-leaky, makes the penalty", look("ink", 2, "7 3"), M.upperLeaky],
];
const [BELOW, ABOVE] = [-0.25, 1.25];

export function view({ root, payload, redraw }) {
  const gate = M.readGate(payload.gate, payload.C);
  const random = M.generator(payload.seed);
  const state = { i: payload.live.indexOf(payload.selected), h: 0, r: random() };
  const choose = (i) => {
    state.i = i;
    state.h = payload.probe[i];
    redraw();
  };
  let shown = null;
  const box = el("div");
  const hSlot = el("div");
  let chart;
  let hRow;
  const rRow = named("r", { value: state.r, oninput: (r) => {
    state.r = r;
    redraw();
  } });
  const shake = shaker("Draw r, again and again", () => {
    state.r = random();
    redraw();
  });
  const interval = named("m", { value: 0, oninput: (m) => {
    const g = M.clamp01(M.logit(gate, state.i, state.h));
    state.r = g < 1 ? M.clamp01((m - g) / (1 - g)) : 1; // the slider cannot leave [g, 1]
    redraw();
  }, aside: [el("span", { class: "spd-floor" }), el("span", { class: "spd-g" })] });
  const facts = Object.fromEntries(["γ", "g", "lower-leaky", "upper-leaky", "m"].map((name) => [name, el("dd")]));
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });

  // Axes and curves belong to one subcomponent: built anew when another is chosen.
  function chooseCurves() {
    const [h0, h1] = payload.ranges[state.i];
    const points = Array.from({ length: 601 }, (_, k) => h0 + ((h1 - h0) * k) / 600);
    const logits = points.map((h) => M.logit(gate, state.i, h));
    chart = plot("importance functions over the inner activation h", [h0, h1], [BELOW, ABOVE], { yTicks: [[0, "0"], [0.5, "0.5"], [1, "1"]], xTicks: [h0, ...(Math.min(-h0, h1) > 0.15 * (h1 - h0) ? [0] : []), h1].map((h) => [h, fixed(h)]) });
    for (const [, lines, f] of CURVES) chart.line(lines).set(points.map((h, k) => [h, f(logits[k])]));
    chart.now = chart.line({ class: "spd-line-now" });
    chart.dot = chart.point({ style: `fill:${hue(payload.slots[state.i])};stroke:var(--spd-ink)` });
    box.replaceChildren(chart.root);
    hRow = named("h", { min: h0, max: h1, step: (h1 - h0) / 200, value: state.h, oninput: (h) => {
      state.h = h;
      redraw();
    } });
    hSlot.replaceChildren(hRow.root);
    shown = state.i;
  }
  const legend = el("ul", { class: "spd-legend" }, ...CURVES.map(([name, lines]) => el("li", {}, lineKey(lines), name)));
  root.append(
    el("div", { class: "spd-controls" }, el("label", {}, `subcomponent of ${payload.layer}: `, select(`subcomponent of ${payload.layer}`, payload.live.map((c, i) => [i, String(c)]), state.i, choose)),
      el("div", { class: "spd-group" }, button("Draw r", () => {
        state.r = random();
        redraw();
      }), shake.node)),
    text,
    el("div", { class: "spd-flow" },
      panel("inner activation h → importance g", box, hSlot),
      panel("importance g → mask m", el("div", { class: "spd-rows" }, rRow.root, interval.root),
        el("dl", { class: "spd-facts" }, ...Object.entries(facts).flatMap(([name, node]) => [el("dt", {}, name), node])))),
    legend);
  choose(state.i);

  function draw() {
    if (shown !== state.i) chooseCurves();
    const z = M.logit(gate, state.i, state.h);
    const g = M.clamp01(z);
    const m = g + (1 - g) * state.r;
    hRow.set(state.h);
    rRow.set(state.r);
    interval.set(m);
    style(interval.track, "--g", g);
    style(interval.root, "--hue", hue(payload.slots[state.i]));
    chart.now.set([[state.h, BELOW], [state.h, ABOVE]]);
    chart.dot.set(state.h, g);
    write(facts["γ"], fixed(z, 3));
    write(facts.g, fixed(g, 3));
    write(facts["lower-leaky"], `${fixed(M.lowerLeaky(z), 3)}, slope ${z < 0 ? "0.01" : z > 1 ? "0" : "1"} in γ`);
    write(facts["upper-leaky"], `${fixed(M.upperLeaky(z), 3)}, slope ${z > 1 ? "0.01" : z < 0 ? "0" : "1"} in γ`);
    write(facts.m, `g + (1 − g)·r = ${fixed(g)} + ${fixed(1 - g)} × ${fixed(state.r)} = ${fixed(m, 3)}`);
    write(text, g >= 1 ? "Importance 1: the mask has no freedom, the subcomponent is always fully on." : g <= 0 ? "Importance 0: the mask may be anything from 0 to 1, and the output must not care." : `Importance ${fixed(g)}: the mask may be anything from ${fixed(g)} to 1.`);
  }
  return { draw, state, logit: (i, h) => M.logit(gate, i, h) };
}
