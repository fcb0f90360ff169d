// View "masks": input → what each subcomponent detects → its mask → what it writes → output.
import * as M from "./model.js";
import { attribute, bars, button, dash, el, fixed, heads, heat, hue, outputName, picture, plane, plural, shaker, signed, slider, small, style, sub, trace, write } from "./ui.js";

export function view({ root, payload, redraw }) {
  const model = M.build(payload);
  const { min, max, value: home } = payload.input;
  const { limit } = payload;
  const dense = Math.max(home.length, ...model.layers.map((layer) => layer.live.length)) > 12;
  const random = M.generator(payload.seed);
  const freshSource = () => model.layers.map((layer) => Float64Array.from({ length: layer.C }, random));
  const candidates = model.layers.flatMap((layer, l) => layer.live.map((c) => [l, c]));
  const keyOf = (l, c) => {
    const i = model.layers[l].live.indexOf(c);
    return i < 0 ? `dead-${l}-${c}` : `s${model.layers[l].slots[i]}`;
  };

  // --- state -------------------------------------------------------------------------------
  const state = { x: Float64Array.from(home), preset: "random", source: model.layers.map((layer) => layer.source), masks: null, held: new Set() };
  let ideal; // the target on x: h, g, output
  let now; // the masked model
  let stale = true; // x changed since `ideal` was computed

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
    const found = M.worst(model, state.x, ideal, candidates, M.generator(payload.seed), 2);
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

  const inputs = Array.from(home, (value, j) => {
    const control = slider({ label: `input ${payload.labels[j]}`, min, max, value, oninput: (v) => {
      state.x[j] = v;
      changeInput();
    } });
    const only = button(payload.labels[j], () => {
      state.x.fill(0);
      state.x[j] = 0.75;
      changeInput();
    }, { class: "spd-name", title: `only ${payload.labels[j]} on, at 0.75`, "aria-label": `only ${payload.labels[j]} on` });
    return { control, root: el("div", { class: "spd-row spd-in" }, only, control.track, control.output) };
  });

  function maskRow(l, c) {
    const layer = model.layers[l];
    const i = layer.live.indexOf(c);
    const slot = i < 0 ? null : layer.slots[i];
    const chip = el("span", { class: "spd-chip" }, String(c));
    const h = el("span", { class: "spd-h" });
    const note = el("span", { class: "spd-note" });
    const marks = [el("span", { class: "spd-floor" }), el("span", { class: "spd-g" }), el("span", { class: "spd-break" })];
    const control = slider({ label: `mask of subcomponent ${c} in ${layer.label}`, value: state.masks[l][c], oninput: (m) => move(l, c, m), aside: marks });
    const row = el("div", { class: "spd-row spd-mask", "data-key": keyOf(l, c), style: `--hue:${hue(slot)}` }, chip, h, control.track, control.output, note);
    let broken;
    return {
      row,
      set: (full) => {
        if (full) {
          const g = ideal.g[l][c];
          broken = full[l][c];
          style(control.track, "--g", g);
          style(control.track, "--b", broken ?? -1);
          row.classList.toggle("is-safe", broken === null);
          write(h, signed(ideal.h[l][c]));
          write(note, `g ${fixed(g)} · alone ${broken === null ? "cannot break it" : `breaks below ${fixed(broken)}`}`);
          const alone = broken === null ? "Alone it cannot break the output." : `Alone it breaks the output below ${fixed(broken)}.`;
          attribute(control.input, "aria-description", `Reads ${fixed(ideal.h[l][c])}; importance ${fixed(g)}. ${alone}`);
        }
        const m = state.masks[l][c];
        control.set(m);
        row.classList.toggle("is-held", state.held.has(`${l}-${c}`));
        row.classList.toggle("is-forbidden", m < ideal.g[l][c] - 0.005);
      },
    };
  }

  function layerPanel(layer, l) {
    const rows = layer.live.map((c) => maskRow(l, c));
    const dead = Array.from({ length: layer.C }, (_, c) => c).filter((c) => !layer.live.includes(c));
    const fold = el("details", { class: "spd-dead" }, el("summary", {}, plural(dead.length, "unused subcomponent")));
    fold.addEventListener("toggle", () => {
      if (fold.childElementCount > 1) return;
      const more = dead.map((c) => maskRow(l, c));
      fold.append(el("div", { class: "spd-rows" }, ...more.map((row) => row.row)));
      rows.push(...more.map((row) => ({ ...row, set: (full) => fold.open && row.set(full) })));
      redraw();
    });
    fold.addEventListener("toggle", changeInput);
    const drawing = layer.picture === "plane" ? arrows(layer, l) : shares(layer, l);
    const panel = el("section", { class: "spd-panel", "aria-label": `layer ${layer.label}` },
      el("h4", {}, layer.label, el("small", {}, ` ${layer.d_out} × ${layer.d_in}`)),
      heads("c", "reads", "mask m"),
      el("div", { class: "spd-rows" }, ...rows.map((row) => row.row)),
      dead.length ? fold : "", drawing.figure);
    return { panel, set: (full) => {
      rows.forEach((row) => row.set(full));
      drawing.set();
    } };
  }

  // Columns of W (rows, where W writes out of the plane) as ink arrows; each subcomponent's share of
  // them in its colour, scaled by its mask; the hidden vector of target and masked model as dots.
  function arrows(layer, l) {
    const { U, V, W, C, d_in, d_out } = layer;
    const writes = d_out === 2;
    const n = writes ? d_in : d_out;
    const entry = (A, j) => (writes ? [A[j], A[d_in + j]] : [A[2 * j], A[2 * j + 1]]);
    const piece = (c, j) => (writes ? [U[c] * V[c * d_in + j], U[C + c] * V[c * d_in + j]] : [U[j * C + c] * V[2 * c], U[j * C + c] * V[2 * c + 1]]);
    const columns = Array.from({ length: n }, (_, j) => entry(W, j));
    const reach = Math.max(...columns.map(([a, b]) => Math.hypot(a, b))) * 1.1;
    const board = plane(`${writes ? "columns" : "rows"} of ${layer.label} as arrows, with what each subcomponent contributes to them`, reach);
    const drawn = [];
    layer.live.forEach((c, i) => {
      for (let j = 0; j < n; j++) {
        const [a, b] = piece(c, j);
        if (Math.hypot(a, b) < 0.06 * reach) continue;
        const arrow = board.arrow({ class: "spd-piece", "data-key": keyOf(l, c), style: `stroke:${hue(layer.slots[i])}`, "stroke-dasharray": dash(layer.slots[i]) });
        drawn.push({ arrow, c, a, b });
      }
    });
    columns.forEach(([a, b], j) => {
      board.arrow({ class: "spd-column" }).set(a, b);
      board.text(writes && l > 0 ? `e${sub(j)}` : (writes ? payload.labels[j] : outputName(payload.labels[j])), a, b);
    });
    const dots = writes ? [board.dot({ class: "spd-dot is-target", r: 6 }), board.dot({ class: "spd-dot is-masked", r: 3.5 })] : [];
    const what = writes ? "columns" : "rows";
    const figure = picture(board.root, `Ink: ${what} of the weight. Colour: what each subcomponent gives, times its mask.${writes ? " Dots: the vector written now." : ""}`);
    return { figure, set: () => {
      for (const { arrow, c, a, b } of drawn) arrow.set(a * state.masks[l][c], b * state.masks[l][c]);
      if (!writes) return;
      const next = l + 1 < model.layers.length;
      const ink = next ? ideal.acts[l + 1] : ideal.z;
      const mine = next ? now.acts[l + 1] : now.z;
      dots[0].set(ink[0], ink[1]);
      dots[1].set(mine[0], mine[1]);
    } };
  }

  // In higher dimensions: which share of each column (row) of W a subcomponent carries, as the
  // projection of its piece on that column; a column's shares add up to 1.
  function shares(layer, l) {
    const { U, V, W, C, d_in, d_out } = layer;
    const byColumn = d_out <= d_in;
    const n = byColumn ? d_in : d_out;
    const table = layer.live.map((c) => Array.from({ length: n }, (_, j) => {
      let dot = 0;
      let norm = 0;
      for (let k = 0; k < (byColumn ? d_out : d_in); k++) {
        const w = byColumn ? W[k * d_in + j] : W[j * d_in + k];
        norm += w * w;
        dot += w * (byColumn ? U[k * C + c] : V[c * d_in + k]);
      }
      return norm ? (dot * (byColumn ? V[c * d_in + j] : U[j * C + c])) / norm : 0;
    }));
    const what = byColumn ? "column" : "row";
    const map = heat(`share of each ${what} of ${layer.label} that each subcomponent carries`, table.length, n, layer.slots, layer.live.map((c) => keyOf(l, c)));
    const figure = picture(map.root, `Across: ${what}s of the weight. Down: subcomponents. Colour: the share of the ${what} each carries, times its mask.`);
    const drawn = new Float64Array(table.length).fill(-1);
    return { figure, set: () => table.forEach((shareOf, i) => {
      const m = state.masks[l][layer.live[i]];
      if (drawn[i] === m) return;
      drawn[i] = m;
      shareOf.forEach((share, j) => map.set(i, j, m * share));
    }) };
  }

  // --- the page ------------------------------------------------------------------------------
  compute();
  const out = bars(payload.labels.map(outputName), { low: payload.activation === "relu" ? 0 : -max * 1.15, top: max * 1.15, limit });
  const panels = model.layers.map(layerPanel);
  root.classList.toggle("is-dense", dense);
  root.append(
    el("div", { class: "spd-controls" },
      el("div", { class: "spd-group", role: "group", "aria-label": "experiments" }, shake.node,
        button("Try to break it", () => choose("worst"), { title: "Search the allowed masks for those that move the output most." })),
      el("div", { class: "spd-group", role: "group", "aria-label": "presets for the masks" }, ...presetButtons.map(([, node]) => node), button("Reset", reset))),
    el("div", { class: "spd-status" }, el("div", {}, verdict, figures, message, spoken), picture(history.root, "largest change, last redraws")),
    el("div", { class: "spd-flow" },
      el("section", { class: "spd-panel is-inputs", "aria-label": "input" }, el("h4", {}, "input"), heads("only", "value"), el("div", { class: "spd-rows" }, ...inputs.map((row) => row.root))),
      ...panels.map((panel) => panel.panel),
      el("section", { class: "spd-panel is-outputs", "aria-label": "output" }, el("h4", {}, "output"), heads("", "", "target | masked"), el("div", { class: "spd-rows" }, ...out.nodes))),
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
    const full = fresh && M.breakPoints(model, M.masked(model, state.x, M.ones(model)), ideal.output, limit);
    if (fresh) inputs.forEach((row, j) => row.control.set(state.x[j]));
    panels.forEach((panel) => panel.set(full));
    out.set(ideal.output, now.output);
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

  // For tests and the curious: the same mathematics on inputs and masks of your own.
  const forward = ({ x, masks }) => {
    const on = M.target(model, x);
    const m = masks ? masks.map((layer) => Float64Array.from(layer)) : M.ones(model);
    return { target: on.output, g: on.g, gamma: on.gamma, h: on.h, output: M.masked(model, x, m).output };
  };
  const search = (x) => M.worst(model, x, M.target(model, x), candidates, M.generator(payload.seed));
  const breaks = (x) => M.breakPoints(model, M.masked(model, x, M.ones(model)), M.target(model, x).output, limit);
  return { draw, state, model, forward, search, breaks, ideal: () => ideal };
}
