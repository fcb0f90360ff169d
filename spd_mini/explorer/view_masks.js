// View "masks": input → what each subcomponent detects → its mask → what it writes → output.
import * as M from "./model.js";
import { arrows, shares } from "./pictures.js";
import { breakPoint, breakPoints, worst } from "./search.js";
import { attribute, bars, button, el, fixed, heads, hue, outputName, picture, plural, shaker, signed, slider, small, style, trace, write } from "./ui.js";

export function view({ root, payload, redraw }) {
  const model = M.build(payload);
  const { min, max, value: home } = payload.input;
  const { limit } = payload;
  const dense = Math.max(home.length, ...model.layers.map((layer) => layer.live.length)) > 12;
  const random = M.generator(payload.seed);
  const freshSource = () => model.layers.map((layer) => Float64Array.from({ length: layer.C }, random));
  const candidates = model.layers.flatMap((layer, l) => layer.live.map((c) => [l, c]));
  const idOf = (l, c) => model.layers[l].ids?.[c] ?? c; // its index in the package
  const keyOf = (l, c) => {
    const i = model.layers[l].live.indexOf(c);
    return i < 0 ? `dead-${l}-${c}` : `s${model.layers[l].slots[i]}`;
  };

  // --- state -------------------------------------------------------------------------------
  const state = { x: Float64Array.from(home), preset: "random", source: model.layers.map((layer) => layer.source), masks: null, held: new Set(), open: new Set() };
  let ideal; // the target on x: h, g, output
  let now; // the masked model
  let stale = true; // x changed since `ideal` was computed
  let points; // where each mask alone breaks the output, as far as known
  let lit = null; // key of what the reader points at

  // Masks that follow from the preset; a mask that the reader moved stays where it was put.
  function settle() {
    const { preset } = state;
    if (preset === "own") return;
    const r = preset === "on" ? 1 : preset === "floor" ? 0 : null;
    const next = M.fromSource(ideal.g, state.source.map((layer) => (r === null ? layer : layer.map(() => r))));
    next.forEach((layer, l) => layer.forEach((_, c) => {
      if (state.held.has(`${l}-${c}`)) layer[c] = state.masks[l][c];
    }));
    state.masks = next;
  }
  function attack() {
    const found = worst(model, state.x, ideal, candidates, M.generator(payload.seed), 2);
    const free = candidates.filter(([l, c]) => ideal.g[l][c] < 1).length;
    const how = free <= 14 ? `every corner of ${plural(free, "free live mask")} tried, then the unused ones` : "steepest steps from several corners";
    // How much of it is the doing of the live pieces? The same masks, with the unused ones left on.
    const liveOnly = found.masks.map((layer, l) => layer.map((m, c) => (model.layers[l].live.includes(c) ? m : 1)));
    const theirs = M.difference(M.masked(model, state.x, liveOnly).output, ideal.output).max;
    say(found.max > limit
      ? `Broken within the rules: allowed masks move an output by ${small(found.max)} (${how}). With the unused pieces left on, the same masks move it by ${small(theirs)}.`
      : `Cannot break it: the worst allowed masks found move an output by ${small(found.max)}, below the limit ${limit} (${how}).`);
    // The corner found is kept as a source r, so that the masks stay allowed when the input moves.
    state.source = found.masks.map((layer, l) => layer.map((m, c) => (m > ideal.g[l][c] ? 1 : 0)));
  }
  function compute() {
    if (stale) ideal = M.target(model, state.x);
    settle();
    now = M.masked(model, state.x, state.masks);
  }

  // --- what the reader does ------------------------------------------------------------------
  const changeInput = () => {
    stale = true;
    if (state.preset === "worst") say("These masks were the worst for the input before. Search again for this one.");
    redraw();
  };
  const choose = (preset) => {
    shake.stop();
    state.held.clear();
    state.preset = preset;
    if (preset === "random") state.source = freshSource();
    say("");
    if (preset === "worst") {
      compute(); // the search needs the importances of the input as it stands
      attack();
    }
    redraw();
  };
  const move = (l, c, m) => {
    state.masks[l][c] = m;
    state.held.add(`${l}-${c}`);
    if (!shake.on()) state.preset = "own";
    redraw();
  };
  const reset = () => {
    state.x.set(home);
    state.open = new Set([...home.keys()].filter((j) => home[j]));
    stale = true;
    choose("random");
  };
  const shake = shaker("Shake", () => {
    state.preset = "random";
    state.source = freshSource();
    redraw();
  }, { title: "Draw all allowed masks anew, about eight times a second. Masks you moved stay put." });

  // --- controls ------------------------------------------------------------------------------
  const presets = Object.entries({ on: "All on", floor: "Only the important", random: "Random, as in training", worst: "Worst case" });
  const presetButtons = presets.map(([name, label]) => [name, button(label, () => choose(name), { "aria-pressed": "false", "data-preset": name })]);
  const verdict = el("strong");
  const figures = el("span", { class: "spd-figures" });
  const message = el("p", { class: "spd-message", role: "status" });
  const spoken = el("span", { class: "spd-spoken", role: "status", "aria-live": "polite" });
  const history = trace("Largest output change over the last redraws", limit);
  const say = (text) => write(message, text);
  let silence = null;

  // With many features, buttons switch them on, and sliders show for those that are.
  const only = (j, v = 0.75) => {
    state.x.fill(0);
    state.open.clear();
    set(j, v);
  };
  const set = (j, v) => {
    state.x[j] = v;
    state.open[v ? "add" : "delete"](j);
    changeInput();
  };
  const drawInput = () => {
    only(Math.floor(random() * home.length), max * (0.3 + 0.7 * random()));
    for (let k = 0; k < 2; k++) set(Math.floor(random() * home.length), min + (max - min) * random());
  };
  const inputs = Array.from(home, (value, j) => {
    const name = payload.labels[j];
    const control = slider({ label: `input ${name}`, min, max, value, oninput: (v) => {
      state.x[j] = v;
      changeInput();
    } });
    const pick = dense
      ? button(name, () => set(j, state.open.has(j) ? 0 : 0.75), { title: `${name} on or off`, "aria-label": `${name} on` })
      : button(name, () => only(j), { class: "spd-name", title: `only ${name} on, at 0.75`, "aria-label": `only ${name} on` });
    if (value) state.open.add(j);
    const row = el("div", { class: "spd-row spd-in" }, dense ? el("span", { class: "spd-name" }, name) : pick, control.track, control.output);
    return { pick, row, set: () => {
      control.set(state.x[j]);
      if (!dense) return;
      if (row.hidden === state.open.has(j)) row.hidden = !row.hidden;
      attribute(pick, "aria-pressed", String(state.open.has(j)));
    } };
  });

  // What it takes to break the output by this mask alone; searched for where it is not known yet.
  function pointOf(l, c, search) {
    if (points[l][c] === undefined && search) points[l][c] = breakPoint(model, state.x, ideal.output, limit, l, c);
    return points[l][c];
  }

  function maskRow(l, c) {
    const layer = model.layers[l];
    const i = layer.live.indexOf(c);
    const slot = i < 0 ? null : layer.slots[i];
    const id = idOf(l, c);
    const chip = el("span", { class: "spd-chip" }, String(id));
    const [h, note] = ["spd-h", "spd-note"].map((name) => (dense ? "" : el("span", { class: name })));
    const marks = [el("span", { class: "spd-floor" }), el("span", { class: "spd-g" }), el("span", { class: "spd-break" })];
    const control = slider({ label: `mask of subcomponent ${id} in ${layer.label}`, value: state.masks[l][c], oninput: (m) => move(l, c, m), aside: marks });
    const row = el("div", { class: "spd-row spd-mask", "data-key": keyOf(l, c), style: `--hue:${hue(slot)}` }, chip, h, control.track, control.output, note);
    const limits = (search) => {
      const [g, broken] = [ideal.g[l][c], pointOf(l, c, search)];
      style(control.track, "--g", g);
      style(control.track, "--b", broken ?? -1);
      row.classList.toggle("is-safe", broken == null);
      const alone = broken === undefined ? "" : broken === null ? "alone cannot break it" : `alone breaks below ${fixed(broken)}`;
      attribute(control.input, "aria-description", `Reads ${fixed(ideal.h[l][c])}; importance ${fixed(g)}. ${alone.replace("alone", "Alone it")}`);
      const text = `g ${fixed(g)}${alone && ` · ${alone}`}`;
      if (dense) return text;
      write(h, signed(ideal.h[l][c]));
      write(note, text);
    };
    return {
      row,
      key: keyOf(l, c),
      set: (fresh, search) => {
        if (fresh) limits(search && ideal.g[l][c] > 0.1);
        const m = state.masks[l][c];
        control.set(m);
        row.classList.toggle("is-held", state.held.has(`${l}-${c}`));
        row.classList.toggle("is-forbidden", m < ideal.g[l][c] - 0.005);
      },
      tell: () => `${id}: m ${fixed(state.masks[l][c])} · reads ${signed(ideal.h[l][c])} · ${limits(true)}`,
    };
  }

  // What a layer says while nothing is pointed at: how many are live, and which matter now.
  function summary(layer, l) {
    const on = layer.live.filter((c) => ideal.g[l][c] > 0.1);
    const some = on.slice(0, 4).map((c) => `${idOf(l, c)} (g ${fixed(ideal.g[l][c])})`).join(", ");
    return `${layer.live.length} live; important on this input: ${on.length ? some : "none"}${on.length > 4 ? ` and ${on.length - 4} more` : ""}`;
  }

  function layerPanel(layer, l) {
    const rows = layer.live.map((c) => maskRow(l, c));
    const dead = Array.from({ length: layer.C }, (_, c) => c).filter((c) => !layer.live.includes(c));
    const fold = el("details", { class: "spd-dead" }, el("summary", {}, plural(dead.length, "unused subcomponent")));
    fold.addEventListener("toggle", () => {
      if (fold.childElementCount > 1) return;
      const more = dead.map((c) => maskRow(l, c));
      fold.append(el("div", { class: "spd-rows" }, ...more.map((row) => row.row)));
      rows.push(...more.map((row) => ({ ...row, set: (...how) => fold.open && row.set(...how) })));
      redraw();
    });
    fold.addEventListener("toggle", changeInput);
    const drawing = (layer.picture === "plane" ? arrows : shares)(board, l);
    const hand = el("p", { class: "spd-hand" });
    const stays = model.rest ? el("p", { class: "spd-hand" }, `Not shown: ${plural(payload.rest[l], "subcomponent")} never important, and what UV leaves of W. They stay on.`) : "";
    const panel = el("section", { class: "spd-panel", "aria-label": `layer ${layer.label}` },
      el("h4", {}, layer.label, el("small", {}, ` ${layer.d_out} × ${layer.d_in}`)),
      dense ? hand : heads("c", "reads", "mask m"),
      el("div", { class: "spd-board" }, el("div", {}, el("div", { class: "spd-rows" }, ...rows.map((row) => row.row)),
        dead.length ? fold : "", stays), drawing.figure));
    return { panel, set: (...how) => {
      rows.forEach((row) => row.set(...how));
      drawing.set();
    }, tell: () => {
      if (dense) write(hand, rows.find((row) => row.key === lit)?.tell() ?? summary(layer, l));
    } };
  }

  // --- the page ------------------------------------------------------------------------------
  compute();
  const [low, top] = payload.range;
  const out = bars(payload.labels.map(outputName), { low, top, limit, plain: dense });
  const most = el("p", { class: "spd-hand" });
  const board = { model, state, keyOf, labels: payload.labels, passes: () => [ideal, now] };
  const panels = model.layers.map(layerPanel);
  root.classList.toggle("is-board", dense);
  root.append(
    el("div", { class: "spd-controls" },
      el("div", { class: "spd-group", role: "group", "aria-label": "experiments" }, shake.node,
        button("Try to break it", () => choose("worst"), { title: "Search the allowed masks for those that move the output most." })),
      el("div", { class: "spd-group", role: "group", "aria-label": "presets for the masks" }, ...presetButtons.map(([, node]) => node), button("Reset", reset))),
    el("div", { class: "spd-status" }, el("div", {}, verdict, figures, message, spoken), picture(history.root, "largest change, last redraws")),
    el("div", { class: "spd-flow" },
      el("section", { class: "spd-panel is-inputs", "aria-label": "input" }, el("h4", {}, "input"),
        dense ? el("div", { class: "spd-picks" }, ...inputs.map((input) => input.pick), button("Draw an input", drawInput)) : heads("only", "value"),
        el("div", { class: "spd-rows" }, ...inputs.map((input) => input.row))),
      ...panels.map((panel) => panel.panel),
      el("section", { class: "spd-panel is-outputs", "aria-label": "output" }, el("h4", {}, "output"), dense ? most : heads("", "", "target | masked"), el("div", { class: "spd-rows" }, ...out.nodes))),
    el("ul", { class: "spd-legend" },
      el("li", {}, "reads: h = V·a of the target"),
      el("li", {}, el("i", { class: "spd-swatch is-floor" }), "not allowed on this input (m < g)"),
      el("li", {}, el("i", { class: "spd-swatch is-g" }), "g, the floor of the mask"),
      el("li", {}, el("i", { class: "spd-swatch is-break" }), `pulled below this, all other masks on, it breaks the output (off by more than ${limit})`),
      el("li", {}, el("i", { class: "spd-swatch is-target" }), "target"),
      el("li", {}, el("i", { class: "spd-swatch is-masked" }), "masked model")));

  function draw() {
    const fresh = stale;
    compute();
    stale = false;
    if (fresh) {
      points = breakPoints(model, state.x, ideal.output, limit);
      inputs.forEach((input) => input.set());
    }
    // Searching takes a while for each mask: at once for a few that matter, else for one pointed at.
    const few = ideal.g.slice(0, model.affine).flatMap((g) => Array.from(g)).filter((g) => g > 0.1).length <= 3;
    panels.forEach((panel) => {
      panel.set(fresh, few);
      panel.tell();
    });
    out.set(ideal.output, now.output);
    write(most, largest());
    const error = M.difference(now.output, ideal.output);
    const off = error.max > limit;
    const allowed = state.masks.every((layer, l) => layer.every((m, c) => m >= ideal.g[l][c] - 1e-9));
    write(verdict, off ? "The output breaks." : "The output stands still.");
    write(figures, ` Largest change ${small(error.max)} (limit ${limit}), MSE ${small(error.mse)}. ${allowed ? "All masks are allowed on this input." : "Some mask is below its floor."}`);
    root.classList.toggle("is-broken", off);
    history.push(error.max);
    for (const [name, node] of presetButtons) node.setAttribute("aria-pressed", String(state.preset === name));
    if (!silence && !shake.on()) // speak at most once a second, and never while shaking
      silence = setTimeout(() => {
        silence = null;
        write(spoken, verdict.textContent + figures.textContent);
      }, 1000);
  }

  // The outputs to read off where bars are too many for numbers: what is large, or off.
  function largest() {
    const order = payload.labels.map((name, j) => [Math.max(Math.abs(ideal.output[j]), Math.abs(now.output[j])), j]).sort((a, b) => b[0] - a[0]);
    const shown = order.slice(0, 4).filter(([size]) => size >= 0.05).map(([, j]) => `${outputName(payload.labels[j])} ${fixed(ideal.output[j])} | ${fixed(now.output[j])}`);
    return `target | masked: ${shown.join(", ") || "nothing"}; all others within ±${fixed(order[shown.length]?.[0] ?? 0)}`;
  }
  root.addEventListener("spd-light", (e) => {
    lit = e.detail;
    panels.forEach((panel) => panel.tell());
  });

  // For tests and the curious: the same mathematics on inputs and masks of your own.
  const forward = ({ x, masks }) => {
    const on = M.target(model, x);
    const m = masks ? masks.map((layer) => Float64Array.from(layer)) : M.ones(model);
    return { target: on.output, g: on.g, gamma: on.gamma, h: on.h, output: M.masked(model, x, m).output };
  };
  const search = (x) => worst(model, x, M.target(model, x), candidates, M.generator(payload.seed));
  const breaks = (x) => {
    const want = M.target(model, x).output;
    return breakPoints(model, x, want, limit).map((layer, l) => (l < model.affine ? Array.from({ length: model.layers[l].C }, (_, c) => breakPoint(model, x, want, limit, l, c)) : layer));
  };
  return { draw, state, model, forward, search, breaks, ideal: () => ideal };
}
