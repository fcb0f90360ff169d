// View "cube": hand-built decompositions of one small target, tried by masks within the rules.
import * as M from "./model.js";
import { corners } from "./search.js";
import { bars, button, choices, el, fixed, heads, hue, panel, picture, select, shaker, slider, small, style, sub, svg, write } from "./ui.js";

const GRID = 21; // points a side of the error map
const DRAWS = 500; // joint random masks behind the printed mean

// Five hues; from 5 on the same, nearer to the ink, with a dashed chip, and dotted from 10 on.
const shade = (i) => (i < 5 ? hue(i) : `color-mix(in srgb, ${hue(i)} ${i < 10 ? 50 : 20}%, var(--spd-ink))`);
const edge = (i) => ["solid", "dashed", "dotted"][Math.floor(i / 5)];

export function view({ root, payload, redraw }) {
  const { limit, cases } = payload;
  const models = cases.map((one) => M.build(one));
  const random = M.generator(payload.seed);
  const state = { which: 0, input: 0, masks: null, pair: [0, 1] };
  let [model, units, ideal] = [];
  const error = (masks) => M.difference(M.masked(model, ideal.acts[0], masks).output, ideal.output).max;
  const floor = ([l, c]) => ideal.g[l][c];

  // What three kinds of test say about this case on this input, the harshest last.
  function tests() {
    const on = M.ones(model);
    const alone = Math.max(...units.map(([l, c]) => {
      const masks = on.map((m) => m.slice());
      masks[l][c] = floor([l, c]);
      return error(masks);
    }));
    const draw = M.generator(7);
    let sum = 0;
    for (let k = 0; k < DRAWS; k++) sum += error(M.fromSource(ideal.g, on.map((m) => m.map(draw))));
    const free = units.filter((unit) => floor(unit) < 1);
    return [alone, sum / DRAWS, corners(model, ideal.acts[0], ideal, free, on)];
  }
  const names = ["one mask at a time, all the way down", `random masks, mean of ${DRAWS}`, "worst case"];
  const results = names.map((name) => {
    const bar = el("span", { class: "spd-bar", style: "--what:var(--spd-warn);--z:0" });
    const value = el("span", { class: "spd-numbers" });
    return { root: el("div", { class: "spd-row spd-test" }, el("span", {}, name), el("span", { class: "spd-bars" }, bar), value), bar, value };
  });
  const caseTabs = choices("decompositions", cases.map((one) => one.name), (i) => load(i, state.input));
  const inputTabs = choices("inputs", cases[0].inputs.map((one) => one.label), (i) => load(state.which, i));
  const why = el("p", { class: "spd-text" });
  const verdict = el("strong");
  const figures = el("span", { class: "spd-figures", role: "status", "aria-live": "polite" });
  const [board, maskBox, outBox, pickBox] = ["spd-map", "spd-rows", "spd-rows", "spd-controls"].map((name, i) =>
    i ? el("div", { class: name }) : svg("svg", { class: name, viewBox: `-0.5 -0.5 ${GRID} ${GRID}`, role: "img", "aria-label": "output error over the masks of two subcomponents" }));
  const cells = Array.from({ length: GRID * GRID }, (_, k) => svg("rect", { x: (k % GRID) - 0.5, y: GRID - 1 - Math.floor(k / GRID) - 0.5, width: 1, height: 1, fill: "var(--spd-warn)" }));
  const allowed = svg("path", { fill: "none", stroke: "var(--spd-ink)", "stroke-width": 0.3, "stroke-dasharray": "0.8 0.5" });
  const here = svg("circle", { r: 0.7, fill: "var(--spd-masked)", stroke: "var(--spd-ink)", "stroke-width": 0.2 });
  for (const node of [allowed, here]) node.setAttribute("shape-rendering", "geometricPrecision");
  // Every cell a whole number of pixels, so that neighbours neither overlap nor leave a gap.
  board.style.cssText = `box-sizing: content-box; width: round(down, min(100% - 2px, 220px), ${GRID}px)`;
  board.append(...cells, allowed, here);
  let [rows, out, worst] = [[]];

  const put = (masks) => {
    state.masks = masks;
    redraw();
  };
  const drawn = () => M.fromSource(ideal.g, ideal.g.map((g) => g.map(random)));
  const shake = shaker("Shake", () => put(drawn()), { title: "Random masks, as in training, about eight times a second" });
  const preset = (make) => () => {
    shake.stop();
    put(make());
  };
  root.append(
    el("div", { class: "spd-controls" }, caseTabs.root), why,
    el("div", { class: "spd-controls" }, el("span", {}, "input"), inputTabs.root),
    el("div", { class: "spd-controls" }, el("div", { class: "spd-group" }, shake.node, button("Random, as in training", preset(drawn)), button("Worst case", preset(() => worst.masks))),
      el("div", { class: "spd-group" }, button("All on", preset(() => M.ones(model))), button("Only the important", preset(() => ideal.g.map((g) => Float64Array.from(g)))))),
    el("div", { class: "spd-status" }, el("div", {}, verdict, figures)),
    el("div", { class: "spd-flow" },
      panel("masks", heads("c", "reads", "mask m"), maskBox),
      panel("output", heads("", "", "target | masked"), outBox),
      panel("error over two masks", pickBox, picture(board, "Stronger colour: larger error. Dashed: the masks allowed on this input. Dot: now."))),
    panel("how far allowed masks can move the output", ...results.map((row) => row.root)));

  function load(which, input) {
    shake.stop();
    state.which = which;
    state.input = Math.min(input, cases[which].inputs.length - 1);
    model = models[which];
    const given = cases[which].inputs[state.input];
    ideal = M.target(model, given.x, given.g);
    units = model.layers.flatMap((layer, l) => Array.from({ length: layer.C }, (_, c) => [l, c]));
    state.masks = M.ones(model);
    state.pair = [...cases[which].pair];
    const title = ([l, c]) => (model.layers.length > 1 ? `${model.layers[l].label} ${c}` : String(c));
    rows = units.map(([l, c], i) => {
      const control = slider({ label: `mask of subcomponent ${title([l, c])}`, value: 1, oninput: (m) => {
        state.masks[l][c] = m;
        redraw();
      }, aside: [el("span", { class: "spd-floor" }), el("span", { class: "spd-g" })] });
      style(control.track, "--g", floor([l, c]));
      const root = el("div", { class: "spd-row spd-mask", "data-key": `s${i}`, style: `--hue:${shade(i)}` }, el("span", { class: "spd-chip", style: `border-style:${edge(i)}` }, title([l, c])), el("span", { class: "spd-h" }, fixed(ideal.h[l][c])), control.track, control.output,
        el("span", { class: "spd-note" }, `g ${fixed(floor([l, c]))}`));
      return { root, control };
    });
    maskBox.replaceChildren(...rows.map((row) => row.root));
    const reach = 1.2 * Math.max(0.1, ...ideal.output.map(Math.abs));
    out = bars(Array.from(ideal.output, (_, j) => `y${sub(j)}`), { low: payload.signed ? -reach : 0, top: reach, limit });
    outBox.replaceChildren(...out.nodes);
    const pick = (k) => select(`${k ? "vertical" : "horizontal"} mask of the map`, units.map((unit, i) => [i, title(unit)]), state.pair[k], (i) => {
      state.pair[k] = i;
      redraw();
    });
    pickBox.replaceChildren("across", pick(0), "up", pick(1));
    const [alone, mean, corner] = tests();
    worst = corner;
    [alone, mean, corner.max].forEach((value, k) => {
      style(results[k].bar, "--w", Math.min(1, value / Math.max(corner.max, limit)));
      write(results[k].value, small(value));
    });
    write(why, cases[which].why);
    caseTabs.set(which);
    inputTabs.set(state.input);
    redraw();
  }

  function drawMap() {
    const [a, b] = state.pair.map((i) => units[i]);
    const masks = state.masks.map((m) => m.slice());
    cells.forEach((cell, k) => {
      masks[a[0]][a[1]] = (k % GRID) / (GRID - 1);
      masks[b[0]][b[1]] = Math.floor(k / GRID) / (GRID - 1);
      style(cell, "opacity", Math.min(1, error(masks) / (10 * limit)));
    });
    const [x, y] = [floor(a), floor(b)].map((g) => g * (GRID - 1));
    allowed.setAttribute("d", `M${x} 0H${GRID - 1}V${GRID - 1 - y}H${x}Z`);
    here.setAttribute("cx", state.masks[a[0]][a[1]] * (GRID - 1));
    here.setAttribute("cy", (1 - state.masks[b[0]][b[1]]) * (GRID - 1));
  }

  function draw() {
    const have = M.masked(model, ideal.acts[0], state.masks).output;
    const { max } = M.difference(have, ideal.output);
    const fits = units.every(([l, c]) => state.masks[l][c] >= ideal.g[l][c] - 1e-9);
    units.forEach(([l, c], i) => {
      rows[i].control.set(state.masks[l][c]);
      rows[i].root.classList.toggle("is-forbidden", state.masks[l][c] < ideal.g[l][c] - 0.005);
    });
    out.set(ideal.output, have);
    root.classList.toggle("is-broken", max > limit);
    write(verdict, max > limit ? "The output breaks." : "The output stands still.");
    write(figures, ` Largest change ${small(max)} (limit ${limit}). ${fits ? "All masks are allowed on this input." : "Some mask is below its floor."}`);
    drawMap();
  }
  load(0, 0);
  return { draw, state, worst: () => worst };
}
