// View "sizes": decompositions of one target with different C under a slider.
import { across, button, el, heat, lineKey, named, panel, picture, plot, plural, small, write } from "./ui.js";

// Matrices are told apart by dashes: the colours belong to the subcomponents.
const LINES = ["none", "7 3", "2 2", "8 2 2 2"];
const look = (l) => ({ style: `stroke:var(--spd-${l ? "soft" : "ink"})`, "stroke-width": 2, "stroke-dasharray": LINES[l % LINES.length] });

export function view({ root, payload, redraw }) {
  const { names, labels, offered, steps } = payload;
  const last = steps.length - 1;
  const state = { at: last };
  const go = (at) => {
    state.at = at;
    redraw();
  };
  const size = named("C", { max: last, step: 1, value: last, oninput: go, format: (at) => offered[at] });
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });

  const most = Math.max(...steps.flatMap((step) => step.map((layer) => layer.live.length)));
  const top = Math.max(1, 1.25 * most);
  const chart = plot("live subcomponents against the number offered", [-0.3, last + 0.3], [0, top], {
    width: across(root), height: 150, xTicks: offered.map((C, i) => [i, C]),
    yTicks: [...new Set([0, ...steps[last].map((layer) => layer.live.length)])].map((v) => [v, String(v)]),
  });
  // What every piece offered being used would look like, as far as it stays on the plot.
  const all = chart.line({ style: "stroke:var(--spd-masked)", "stroke-width": 1.5 });
  all.set(steps.flatMap((step, i) => {
    const [C, before] = [step[0].C, i ? steps[i - 1][0].C : null];
    const cut = before !== null && before < top && C > top ? [[i - 1 + (top - before) / (C - before), top]] : [];
    return [...cut, [i, C]];
  }));
  const points = names.map((name, l) => {
    chart.line(look(l)).set(steps.map((step, i) => [i, step[l].live.length]));
    return chart.point({ style: "fill:var(--spd-surface);stroke:var(--spd-ink);stroke-width:2" });
  });
  const now = chart.line({ class: "spd-line-now" });

  const boards = names.map((name) => {
    const box = el("div");
    const facts = [el("dd"), el("dd")];
    const node = panel(name, box, el("dl", { class: "spd-facts" }, el("dt", {}, "live"), facts[0], el("dt", {}, "‖W − UV‖/‖W‖"), facts[1]));
    return { box, facts, node };
  });
  const maps = steps.map((step) => step.map(({ live, slots, g }, l) => {
    if (!live.length) return el("p", {}, "no live subcomponent");
    const map = heat(`importances in ${names[l]}: inputs across, live subcomponents down`, live.length, labels.length, slots, slots.map((slot) => `s${slot}`));
    map.root.style.aspectRatio = `${labels.length} / ${live.length}`;
    g.forEach((row, i) => row.forEach((value, j) => map.set(i, j, value / 100)));
    return picture(map.root, "Importance of the live subcomponents on each input: inputs across, subcomponents down.");
  }));
  const legend = el("ul", { class: "spd-legend" }, ...names.map((name, l) => el("li", {}, lineKey(look(l)), `live in ${name}`)),
    el("li", {}, lineKey({ style: "stroke:var(--spd-masked)", "stroke-width": 1.5 }), `offered in ${names[0]}`));
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-wide" }, size.root), button("Reset", () => go(last))),
    text,
    panel("live subcomponents against C", picture(chart.root, "Across: C, the subcomponents offered. Up: those that are live."), legend),
    el("div", { class: "spd-flow" }, ...boards.map((board) => board.node)));

  let shown = -1;
  function draw() {
    const step = steps[state.at];
    size.set(state.at);
    if (shown !== state.at) boards.forEach((board, l) => board.box.replaceChildren(maps[state.at][l]));
    shown = state.at;
    step.forEach(({ live, C, faithful }, l) => {
      write(boards[l].facts[0], `${live.length} of ${C}`);
      write(boards[l].facts[1], small(faithful));
      points[l].set(state.at, live.length);
    });
    now.set([[state.at, 0], [state.at, top]]);
    write(text, `C = ${offered[state.at]}: ${names.map((name, l) => `${name} uses ${step[l].live.length} of ${plural(step[l].C, "subcomponent")}`).join(", ")}.`);
  }
  return { draw, state };
}
