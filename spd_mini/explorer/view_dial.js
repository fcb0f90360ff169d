// View "dial": runs that differ in one setting, under a slider, seed by seed (chapter 9).
import { across, button, choices, dash, el, heat, hue, lineKey, named, panel, picture, plane, plot, plural, write } from "./ui.js";

// The second lies on the first where both hold, so the first is broad and the second thin.
const LOOKS = [
  ["right pattern", { style: "stroke:var(--spd-edge)", "stroke-width": 5 }],
  ["right lengths as well", { style: "stroke:var(--spd-ink)", "stroke-width": 2, "stroke-dasharray": "3 3" }],
];

export function view({ root, payload, redraw }) {
  const { knob, labels, columns, settings, start } = payload; // start: the setting it opens on
  const last = settings.length - 1;
  const state = { at: start, run: payload.run };
  const go = (at, run = state.run) => {
    Object.assign(state, { at, run });
    redraw();
  };
  const slider = named(knob, { max: last, step: 1, value: start, oninput: (at) => go(at), format: (at) => settings[at].label });
  const runs = settings[0].runs;
  const seeds = choices("run", runs.map((run) => run.name), (run) => go(state.at, run));
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });

  const chart = plot(`right runs against ${knob}`, [-0.3, last + 0.3], [0, runs.length * 1.1], {
    width: across(root), height: 130, xTicks: settings.map(({ label }, i) => [i, label]),
    yTicks: [0, runs.length].map((v) => [v, String(v)]),
  });
  // A band and no third line: the setting that is shown must not look like a curve.
  const now = chart.line({ style: "stroke:var(--spd-sunk);stroke-width:16" });
  const count = (i, kind) => settings[i].runs.filter((run) => run[kind]).length;
  ["pattern", "strict"].forEach((kind, k) => chart.line(LOOKS[k][1]).set(settings.map((_, i) => [i, count(i, kind)])));

  const reach = 1.15 * Math.max(...columns.map(([a, b]) => Math.hypot(a, b)));
  const drawn = settings.map(({ runs }) => runs.map(({ g, slots, arrows }) => {
    const map = heat("which piece serves which input: inputs across, pieces down", g.length, labels.length, slots, slots.map((slot) => `s${slot}`));
    map.root.style.aspectRatio = "1.3";
    g.forEach((row, i) => row.forEach((value, j) => map.set(i, j, value / 100)));
    const board = plane("columns of W, and what the pieces have of them", reach);
    for (const [slot, a, b] of arrows) board.arrow({ class: "spd-piece", "data-key": `s${slot}`, style: `stroke:${hue(slot)};stroke-width:5`, "stroke-dasharray": dash(slot) }).set(a, b);
    columns.forEach(([a, b], j) => {
      board.arrow({ class: "spd-column" }).set(a, b);
      board.text(labels[j], a, b);
    });
    // Beyond five pieces colours repeat: a key beside each row shows the line of its arrows.
    const keys = slots.map((slot) => {
      const key = lineKey({ style: `stroke:${hue(slot)};stroke-width:5`, "stroke-dasharray": dash(slot) });
      key.setAttribute("data-key", `s${slot}`);
      return key;
    });
    return [board.root, g.length ? el("div", { class: "spd-keyed" }, el("div", {}, ...keys), map.root) : el("p", {}, "no piece in use")];
  }));
  const boxes = [el("div"), el("div")];
  const legend = el("ul", { class: "spd-legend" }, ...LOOKS.map(([name, look]) => el("li", {}, lineKey(look), name)));
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-wide" }, slider.root), seeds.root, button("Reset", () => go(start, payload.run))),
    text,
    panel("right runs", picture(chart.root, `Across: ${knob}. Up: runs, of ${runs.length}. Band: the setting shown.`), legend),
    el("div", { class: "spd-flow" },
      panel("lengths", boxes[0], el("p", {}, "Ink: columns of W. Colour: each piece's column for the inputs that it serves. From the sixth piece on, colours come again, dashed.")),
      panel("pattern", boxes[1], el("p", {}, "Inputs across, pieces that serve any input down; beside each, its arrow's line. Point at one to light it on both sides."))));

  let shown = null;
  function draw() {
    const { label, runs } = settings[state.at];
    const run = runs[state.run];
    slider.set(state.at);
    seeds.set(state.run);
    if (shown !== run) drawn[state.at][state.run].forEach((node, k) => boxes[k].replaceChildren(node));
    shown = run;
    now.set([[state.at, 0], [state.at, runs.length * 1.1]]);
    write(text, `${knob} ${label}, ${run.name}: ${plural(run.g.length, "piece")} in use. ${run.text}`);
  }
  return { draw, state };
}
