// View "adversary": masks set one by one to do harm, against masks drawn at random.
import * as M from "./model.js";
import { flips, worst } from "./search.js";
import { across, bars, button, choices, el, heads, lineKey, named, outputName, panel, picture, plot, plural, small, write } from "./ui.js";

// Decompositions are told apart by dashes: the colours belong to subcomponents.
const LINES = ["none", "7 3", "2 2", "8 2 2 2"];
const look = (k, now) => ({ style: `stroke:var(--spd-${now ? "ink" : "soft"})`, "stroke-width": now ? 2.4 : 1.5, "stroke-dasharray": LINES[k % LINES.length] });
const RANDOM = { style: "stroke:var(--spd-masked)", "stroke-width": 1.5 };
const DRAWS = 500;
const START = { which: 0, feature: 0, count: 6 };

export function view({ root, payload, redraw }) {
  const { cases, limit, labels } = payload;
  const models = cases.map((one) => M.build(one));
  const state = { ...START };
  const xs = labels.map((_, j) => Float64Array.from(labels, (_, i) => (i === j ? payload.probe : 0)));

  // All that an adversary finds on one input: rung k holds the worst masks with at most k switched;
  // the last one is free to use any number, and the search of the mask board has its say there.
  function attack(model, x) {
    const ideal = M.target(model, x);
    const candidates = model.layers.flatMap((layer, l) => layer.live.map((c) => [l, c]));
    const rungs = flips(model, x, ideal);
    while (rungs.length <= freeOn(model, x)) rungs.push(rungs.at(-1));
    const last = worst(model, x, ideal, candidates, M.generator(payload.seed));
    if (last.max > rungs.at(-1).max) rungs[rungs.length - 1] = last;
    const draw = M.generator(payload.seed);
    const changes = Array.from({ length: DRAWS }, () =>
      M.difference(M.masked(model, x, M.fromSource(ideal.g, ideal.g.map((g) => g.map(draw)))).output, ideal.output).max);
    return { ideal, rungs, random: changes.sort((a, b) => a - b)[Math.floor(0.99 * DRAWS)] };
  }
  const known = new Map();
  const found = (which, feature) => {
    const key = `${which}-${feature}`;
    if (!known.has(key)) known.set(key, attack(models[which], xs[feature]));
    return known.get(key);
  };

  // The slider ends where an input has no more masks to set; the drawing, with the longest of them.
  const freeOn = (model, x) => M.target(model, x).g.reduce((n, g) => n + g.filter((v) => v < 1).length, 0);
  const most = Math.max(...models.flatMap((model) => xs.map((x) => freeOn(model, x))));
  const go = (changes) => {
    Object.assign(state, changes);
    redraw();
  };
  const caseTabs = choices("decompositions", cases.map((one) => one.name), (which) => go({ which }));
  const inputTabs = choices("the feature that is on", labels, (feature) => go({ feature }));
  const strength = named("at most", { max: most, step: 1, value: state.count, oninput: (count) => go({ count }), format: (count) => plural(count, "mask") });
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });
  const top = 1.1 * Math.max(2 * limit, payload.reach);
  const tick = [1, 2, 5, 10, 20, 50].find((step) => most / step <= 5) ?? 100;
  const chart = plot("largest change of an output against the number of masks that the adversary sets", [0, most], [0, top], {
    width: across(root), height: 190, yTicks: [[0, "0"], [limit, String(limit)], [top / 1.1, small(top / 1.1)]],
    xTicks: Array.from({ length: Math.floor(most / tick) + 1 }, (_, k) => [k * tick, String(k * tick)]),
  });
  chart.line({ style: "stroke:var(--spd-warn)", "stroke-width": 1, "stroke-dasharray": "4 3" }).set([[0, limit], [most, limit]]);
  const chance = chart.line(RANDOM);
  const lines = cases.map((_, k) => chart.line(look(k, false)));
  const cursor = chart.line({ class: "spd-line-now" });
  const dot = chart.point({ style: "fill:var(--spd-surface);stroke:var(--spd-ink);stroke-width:2" });
  const out = bars(labels.map(outputName), { low: payload.range[0], top: payload.range[1], limit });
  const names = models[0].layers.map((layer) => layer.label);
  const counts = names.map(() => el("dd"));
  root.append(
    el("div", { class: "spd-controls" }, caseTabs.root),
    el("div", { class: "spd-controls" }, el("span", {}, "on"), inputTabs.root, button("Reset", () => go(START))),
    el("div", { class: "spd-controls" }, el("div", { class: "spd-wide" }, strength.root)),
    text,
    panel("how far the output moves", picture(chart.root, "Across: masks that the adversary may set at most, all others on. Up: largest change of an output."),
      el("ul", { class: "spd-legend" }, ...cases.map((one, k) => el("li", {}, lineKey(look(k, true)), one.name)),
        el("li", {}, lineKey(RANDOM), "99 of 100 random draws of all masks stay below"),
        el("li", {}, lineKey({ style: "stroke:var(--spd-warn)", "stroke-dasharray": "4 3" }), "limit"))),
    el("div", { class: "spd-flow" },
      panel("output", heads("", "", "target | masked"), el("div", { class: "spd-rows" }, ...out.nodes)),
      panel("masks set, at their floor", el("dl", { class: "spd-facts" }, ...names.flatMap((name, l) => [el("dt", {}, name), counts[l]])))));

  function draw() {
    const { which, feature, count } = state;
    const { ideal, rungs, random } = found(which, feature);
    const at = Math.min(count, rungs.length - 1);
    const { max, masks } = rungs[at];
    caseTabs.set(which);
    inputTabs.set(feature);
    strength.input.max = rungs.length - 1;
    strength.set(at);
    lines.forEach((line, k) => {
      const own = found(k, feature).rungs;
      for (const [name, value] of Object.entries(look(k, k === which))) line.node.setAttribute(name, value);
      line.set(own.map((rung, i) => [i, rung.max]));
    });
    chance.set([[0, random], [most, random]]);
    cursor.set([[at, 0], [at, top]]);
    dot.set(at, max);
    const now = M.masked(models[which], xs[feature], masks);
    out.set(ideal.output, now.output);
    let used = 0;
    models[which].layers.forEach((layer, l) => {
      const set = Array.from(masks[l].keys()).filter((c) => masks[l][c] < 1);
      used += set.length;
      const live = set.filter((c) => layer.live.includes(c)).length;
      write(counts[l], `${set.length} of ${layer.C}, ${live} of them live on some feature`);
    });
    root.classList.toggle("is-broken", max > limit);
    const enough = rungs.findIndex((rung) => rung.max > limit);
    write(text, `${cases[which].name}, ${labels[feature]} on: allowed at most ${at} of the ${rungs.length - 1} masks that are free, the adversary sets ${used} and moves an output by ${small(max)}. ${enough < 0 ? `No number of masks found breaks the limit ${limit}` : `${plural(enough, "mask")} ${enough === 1 ? "is" : "are"} enough to break the limit ${limit}`}; 99 of 100 random draws stay below ${small(random)}.`);
  }
  return { draw, state, attack: (which, x) => attack(models[which], Float64Array.from(x)) };
}
