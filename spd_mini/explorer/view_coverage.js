// View "coverage": certified mechanisms against runs, under a slider (chapter 13).
import { across, button, choices, el, lineKey, named, panel, picture, plot, plural, style, write } from "./ui.js";

const LINES = [
  ["skipped, of all", { style: "stroke:var(--spd-ink)", "stroke-width": 2 }],
  ["output lost (error), mean", { style: "stroke:var(--spd-masked)", "stroke-width": 2, "stroke-dasharray": "5 3" }],
];
const percent = (v) => `${(100 * v).toFixed(v < 0.0995 ? 1 : 0)} %`;

export function view({ root, payload, redraw }) {
  const { knob, mechanisms, runs, labels, near, off, start, arms } = payload;
  const last = labels.length - 1;
  const state = { at: start, arm: 0 };
  const go = (change) => {
    Object.assign(state, change);
    redraw();
  };
  const slider = named(knob, { max: last, step: 1, value: start, oninput: (at) => go({ at }), format: (at) => labels[at] });
  const ways = choices("way of training", arms.map((arm) => arm.name), (arm) => go({ arm }));
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });

  const width = across(root);
  const every = Math.ceil((labels.length * 52) / (width - 42)); // labels that fit side by side
  const chart = plot(`share skipped and share of the output lost, against ${knob}`, [-0.3, last + 0.3], [0, 1.05], {
    width, height: 130, xTicks: labels.map((label, i) => [i, label]).filter(([i]) => i % every === 0),
    yTicks: [0, 0.5, 1].map((v) => [v, String(v)]),
  });
  const lines = LINES.map(([, look]) => chart.line(look));
  const now = chart.line({ class: "spd-line-now" });

  const cells = mechanisms.map(() => runs.map(() => el("td")));
  const errors = runs.map(() => el("td"));
  const head = (scope, name) => el("th", { scope }, name);
  const grid = el("table", { class: "spd-cover", "aria-label": "mechanisms down, runs across" },
    el("thead", {}, el("tr", {}, el("td"), ...runs.map((name) => head("col", name)))),
    el("tbody", {}, ...mechanisms.map((name, i) => el("tr", {}, head("row", name), ...cells[i])),
      el("tr", { class: "spd-total" }, head("row", "error"), ...errors)));
  const legend = el("ul", { class: "spd-legend" }, ...LINES.map(([name, look]) => el("li", {}, lineKey(look), name)));
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-wide" }, slider.root), ways.root, button("Reset", () => go({ at: start, arm: 0 }))),
    text,
    panel("what is in the weights (down), and how important each run (across) calls it",
      picture(grid, `A number: importance on the mechanism's own probe. × and hatching: below ${off}, skipped. Last row: share of the output lost.`)),
    panel("all settings", picture(chart.root, `Across: the settings of ${knob}, one step each. Up: shares, 1 = all.`), legend));

  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const count = (rs, state) => rs.flatMap((run) => run.state).filter((v) => v === state).length;
  let drawn = null;
  function draw() {
    const { name, settings } = arms[state.arm];
    const rows = settings[state.at];
    slider.set(state.at);
    ways.set(state.arm);
    if (drawn !== state.arm) {
      lines[0].set(settings.map((rs, i) => [i, count(rs, -1) / (rs.length * mechanisms.length)]));
      lines[1].set(settings.map((rs, i) => [i, Math.min(1, mean(rs.map((run) => run.error)))]));
      drawn = state.arm;
    }
    now.set([[state.at, 0], [state.at, 1.05]]);
    rows.forEach((run, j) => {
      run.g.forEach((value, i) => {
        const cell = cells[i][j];
        const off = run.state[i] < 0;
        cell.classList.toggle("is-skipped", off);
        style(cell, "--g", value / 100);
        write(cell, off ? "×" : (value / 100).toFixed(2));
      });
      errors[j].classList.toggle("is-off", run.error > near);
      write(errors[j], percent(run.error));
    });
    const good = rows.filter((run) => run.error <= near).length;
    write(text, `${name}, ${knob} ${labels[state.at]}: of ${plural(rows.length * mechanisms.length, "mechanism")} in ${plural(rows.length, "run")}, ${count(rows, 1)} found, ${count(rows, -1)} skipped, ${count(rows, 0)} in between. Near-perfect (error at most ${percent(near)}): ${good} of ${rows.length}.`);
  }
  return { draw, state };
}
