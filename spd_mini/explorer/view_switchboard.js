// View "switchboard": pieces of the weights deleted or scaled, and what becomes of every fact.
import * as M from "./model.js";
import { extent, reading, recall } from "./facts.js";
import { attribute, button, choices, el, fixed, named, panel, plural, style, write } from "./ui.js";

const WORST = 6; // so many facts in the list of those hurt most
const HURT = 0.001; // a loss below this is not shown

// One stop of the Tab key for many buttons: the arrow keys, Home and End go from one to another.
// Returns what sets the stop.
function roving(nodes) {
  const stop = (node) => nodes.forEach((other) => attribute(other, "tabindex", other === node ? "0" : "-1"));
  if (nodes.length) stop(nodes[0]);
  nodes.forEach((node, i) => {
    node.addEventListener("focus", () => stop(node));
    node.addEventListener("keydown", (e) => {
      const to = { ArrowLeft: i - 1, ArrowUp: i - 1, ArrowRight: i + 1, ArrowDown: i + 1, Home: 0, End: nodes.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      nodes[to]?.focus();
    });
  });
  return stop;
}

export function view({ root, payload, redraw }) {
  const model = M.build(payload);
  const { answers, groups, threshold } = payload;
  const n = answers.length;
  const keys = M.decode(payload.keys, n * model.layers[0].d_in);
  const noise = M.decode(payload.noise, payload.draws * model.layers[0].d_in);
  const layers = model.layers.map((layer) => ({ ...layer, g: M.decode(layer.g, n * layer.C), gram: M.symmetric(M.decode(layer.gram, (layer.C * (layer.C + 1)) / 2), layer.C) }));
  const facts = Array.from(answers.keys());
  const pieces = layers.flatMap((layer, l) => layer.ids.map((id, c) => ({ l, c, id, key: `p${l}-${c}` })));
  const importance = ({ l, c }, fact) => layers[l].g[fact * layers[l].C + c];
  const pathOf = (l) => Math.floor(l / 2);
  const chosen = (l) => [...state.off].filter((one) => one.l === l);
  const sides = [...new Set(layers.map((layer) => layer.side))];

  // --- state ---------------------------------------------------------------------------------
  // off: the pieces that are scaled; meant: the facts they were chosen for; side, path: −1 for all
  const home = { fact: payload.fact, side: -1, path: -1, factor: 0, noise: 0 };
  const state = { ...home, off: new Set(), meant: new Set() };
  const random = M.generator(payload.seed);
  const holding = (fact) => pieces.filter((one) => importance(one, fact) > threshold
    && (state.side < 0 || layers[one.l].side === sides[state.side]) && (state.path < 0 || pathOf(one.l) === state.path));
  const put = (values) => {
    Object.assign(state, values);
    redraw();
  };
  const remove = (facts) => put({ meant: new Set(facts), off: new Set(facts.flatMap(holding)) });
  const again = (values) => {
    Object.assign(state, values);
    if (state.meant.size) remove([...state.meant]);
    redraw();
  };
  const atRandom = () => {
    const as = state.off.size ? [...state.off] : holding(state.fact);
    const drawn = layers.flatMap((_, l) => {
      const count = as.filter((one) => one.l === l).length;
      return pieces.filter((one) => one.l === l).map((one) => [random(), one]).sort((a, b) => a[0] - b[0]).slice(0, count).map(([, one]) => one);
    });
    put({ off: new Set(drawn), meant: new Set() });
  };
  const toggle = (one) => {
    if (!state.off.delete(one)) state.off.add(one);
    redraw();
  };
  const reset = () => {
    Object.assign(state, home);
    remove([home.fact]);
  };
  state.meant.add(home.fact);
  holding(home.fact).forEach((one) => state.off.add(one));

  // --- what follows from it ------------------------------------------------------------------
  const untouched = reading(model, keys, noise);
  let [before, done] = [{}, {}]; // the model as trained, and as edited: kept while nothing changes them
  function compute() {
    const { noise: strength } = state;
    if (before.strength !== strength) before = { strength, ...recall(model, untouched, answers, strength) };
    const name = [...state.off].map((one) => one.key).sort().join() + state.factor;
    if (done.name !== name) {
      const masks = M.ones(model);
      for (const { l, c } of state.off) masks[l][c] = state.factor;
      const plain = M.edited(model, masks);
      const reads = [...state.off].some((one) => layers[one.l].relu);
      done = { name, plain, extents: layers.map((layer, l) => extent(layer, masks[l])), read: reads ? reading(plain, keys, noise) : untouched };
    }
    if (!state.off.size) return { before, after: before };
    if (done.after?.strength !== strength) done.after = { strength, ...recall(done.plain, done.read, answers, strength) };
    return { before, after: done.after };
  }

  // --- controls ------------------------------------------------------------------------------
  const subject = () => facts.filter((f) => groups[f] === groups[state.fact]);
  const actions = [
    ["Delete this fact", () => remove([state.fact])],
    ["Delete it too", () => put({ off: new Set([...state.off, ...holding(state.fact)]), meant: new Set([...state.meant, state.fact]) })],
    ["Its whole subject", () => remove(subject())],
    ["As many at random", atRandom],
    ["Nothing deleted", () => remove([])],
    ["Reset", reset],
  ].map(([label, act]) => button(label, act));
  const fact = named("fact", { max: n - 1, step: 1, value: state.fact, oninput: (v) => put({ fact: v }), format: String });
  const factor = named("factor (0 deletes)", { min: -1, max: 2, step: 0.05, value: 0, oninput: (v) => put({ factor: v }) });
  const strength = named("noise of paraphrases", { max: 1.5, step: 0.05, value: 0, oninput: (v) => put({ noise: v }) });
  const side = choices("matrices", [sides.join(" and "), ...sides], (i) => again({ side: i - 1 }));
  const paths = choices("pathways", ["every pathway", ...model.ends.map((_, k) => `pathway ${k}`)], (i) => again({ path: i - 1 }));
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });

  // --- the board: a cell a fact ---------------------------------------------------------------
  const twoBars = () => ["is-target", "is-masked"].map((kind) => el("span", { class: `spd-bar ${kind}`, style: "--z:0" }));
  const cells = facts.map((f) => {
    const [was, is] = twoBars();
    const mark = el("b");
    const node = el("button", { type: "button", class: "spd-cell-of", "data-key": `f${f}`, onclick: () => put({ fact: f }), onfocus: () => put({ fact: f }) },
      String(f), mark, el("span", { class: "spd-bars" }, was, is));
    return { node, was, is, mark };
  });
  const board = [...new Set(groups)].map((group) =>
    el("div", { role: "group", "aria-label": `subject ${group}` }, el("small", {}, `subject ${group}`), el("div", { class: "spd-cells" }, ...cells.filter((_, f) => groups[f] === group).map((cell) => cell.node))));
  root.style.setProperty("--per", Math.min(4, Math.max(...groups.map((group) => groups.filter((g) => g === group).length))));
  const hand = el("p", { class: "spd-hand" });

  // --- the pieces -----------------------------------------------------------------------------
  const switches = new Map(pieces.map((one) => {
    const bar = el("span", { class: "spd-bar", style: "--z:0" });
    const node = button(String(one.id), () => toggle(one), { "data-key": one.key, class: "spd-button spd-switch" });
    node.append(bar);
    return [one, { node, bar }];
  }));
  const lists = layers.map((layer, l) => {
    const own = pieces.filter((one) => one.l === l).map((one) => switches.get(one).node);
    const count = el("small");
    return { count, node: el("div", { role: "group", "aria-label": `pieces of ${layer.label}` }, el("p", {}, `${layer.label} `, count), el("div", { class: "spd-switches" }, ...own)), own };
  });
  const told = el("p", { class: "spd-hand" });

  // --- the facts hurt most, and the weights ----------------------------------------------------
  const hurt = Array.from({ length: Math.min(WORST, n) }, () => {
    const [was, is] = twoBars();
    const name = el("span", { class: "spd-name" });
    const numbers = el("span", { class: "spd-numbers" });
    return { node: el("div", { class: "spd-row spd-hurt" }, name, el("span", { class: "spd-bars" }, was, is), numbers), was, is, name, numbers };
  });
  const spared = el("p");
  const rows = layers.map((layer) => [el("dt", {}, layer.label), el("dd")]);
  const python = el("code");
  const swatch = (kind, words) => el("li", {}, el("i", { class: `spd-swatch ${kind}` }), words);
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-group", role: "group", "aria-label": "what to delete" }, ...actions)),
    el("div", { class: "spd-controls" }, el("span", {}, "from"), side.root, model.ends.length > 1 ? paths.root : ""),
    el("div", { class: "spd-brush" }, fact.root, factor.root, strength.root),
    text,
    panel("every fact", el("div", { class: "spd-subjects" }, ...board), hand,
      el("ul", { class: "spd-legend" }, swatch("is-target", "probability of its answer as trained"), swatch("is-masked", "now"),
        el("li", {}, `– lost (below ${fixed(payload.known)}), as meant`), el("li", {}, "× lost besides"), el("li", {}, "! meant, but still known"))),
    panel("pieces: click one to multiply it by the factor, again to restore it", ...lists.map((one) => one.node), told),
    el("div", { class: "spd-flow" },
      panel("hurt most besides", ...hurt.map((row) => row.node), spared),
      panel("what is taken from the weights", el("dl", { class: "spd-facts" }, ...rows.flat()),
        el("p", {}, `The weights themselves change: this is a plain network of the same class, ${payload.model}, with the same entries. No masks remain, and nothing acts while it runs. Biases, all other pieces and what the pieces leave over stay as they were. ‖·‖ is the Frobenius norm. In Python:`), python)));
  const stop = roving(cells.map((cell) => cell.node));
  lists.forEach(({ own }) => roving(own));

  // --- in words -------------------------------------------------------------------------------
  let now = compute();
  let lit = null;
  const three = (v) => fixed(v, 3);
  const names = (list) => `${list.length === 1 ? "fact" : "facts"} ${list.join(", ")}`;
  const ofEach = () => layers.map((layer, l) => [chosen(l).length, layer.label]).filter(([count]) => count).map(([count, label]) => `${count} of ${label}`).join(", ");
  const knew = (f) => now.before.p[f] >= payload.known;
  const knows = (f) => now.after.p[f] >= payload.known;
  // What became of a fact, as a sign beside its number and in words.
  const fate = (f) => {
    if (meant(f) && knows(f)) return [" !", "still known, though meant"];
    if (!knew(f) || knows(f)) return ["", ""];
    return meant(f) ? [" –", "lost, as meant"] : [" ×", "lost besides"];
  };
  const meant = (f) => state.meant.has(f);
  const order = () => facts.filter((f) => !meant(f)).map((f) => [now.before.p[f] - now.after.p[f], f]).sort((a, b) => b[0] - a[0]);

  function story() {
    const on = state.noise ? ` in ${payload.draws} paraphrases with noise ${fixed(state.noise)}` : "";
    if (!state.off.size) return `Nothing is deleted: the model as trained knows ${facts.filter(knew).length} of ${n} facts${on}.${state.meant.size ? " No piece matters on the key of what was to be deleted." : ""}`;
    const done = state.factor === 0 ? "deleted" : state.factor === 1 ? "multiplied by 1, which changes nothing" : `multiplied by ${fixed(state.factor)}`;
    const mine = [...state.meant].sort((a, b) => a - b);
    const mean = (p) => three(mine.reduce((sum, f) => sum + p[f], 0) / mine.length);
    const of = mine.length ? ` to forget ${names(mine)}. The probability of ${mine.length > 1 ? "their answers" : "its answer"} was ${mean(now.before.p)}${mine.length > 1 ? " in the mean" : ""}${on} and is ${mean(now.after.p)}` : on;
    const others = facts.filter((f) => !meant(f) && knew(f));
    const [[most, f]] = [...order(), [0, 0]];
    return `${plural(state.off.size, "piece")} ${done} (${ofEach()})${of}. Of the ${others.length} ${mine.length ? "other " : ""}facts known before, ${others.filter(knows).length} are still known; ${most >= HURT ? `hurt most: fact ${f}, ${three(now.before.p[f])} → ${three(now.after.p[f])}` : `none loses ${HURT}`}.`;
  }

  // What is pointed at, else the chosen fact.
  function tell() {
    const f = facts.find((f) => `f${f}` === lit) ?? state.fact;
    const says = now.after.says[f];
    write(hand, `Fact ${f} of subject ${groups[f]}: its answer, ${answers[f]}, had probability ${three(now.before.p[f])} and has ${three(now.after.p[f])}.${says === answers[f] ? "" : ` The model now prefers answer ${says}.`}`);
    const one = pieces.find(({ key }) => key === lit);
    if (one) {
      const serves = facts.filter((f) => importance(one, f) > threshold);
      write(told, `Piece ${one.id} of ${layers[one.l].label} matters on the ${serves.length > 1 ? "keys of facts" : "key of fact"} ${serves.map((f) => `${f} (g ${fixed(importance(one, f))}, probability now ${three(now.after.p[f])})`).join(", ")}. ${state.off.has(one) ? `Its factor is ${fixed(state.factor)}.` : "It is untouched."}`);
    } else {
      const ofLayer = (l) => pieces.filter((p) => p.l === l && importance(p, f) > threshold).map((p) => `${p.id} (g ${fixed(importance(p, f))})`);
      write(told, `What matters on the key of fact ${f}: ${layers.map((layer, l) => `${layer.label}: ${ofLayer(l).join(", ") || "none"}`).join("; ")}.`);
    }
    // a piece lights the facts it serves, a fact its pieces
    cells.forEach(({ node }, f) => node.classList.toggle("is-with", Boolean(one) && importance(one, f) > threshold));
    for (const [piece, { node }] of switches) node.classList.toggle("is-with", lit?.[0] === "f" && importance(piece, f) > threshold);
  }
  root.addEventListener("spd-light", (e) => {
    lit = e.detail;
    tell();
  });

  function draw() {
    now = compute();
    fact.set(state.fact);
    stop(cells[state.fact].node);
    factor.set(state.factor);
    strength.set(state.noise);
    side.set(state.side + 1);
    paths.set(state.path + 1);
    cells.forEach(({ node, was, is, mark }, f) => {
      const [sign, words] = fate(f);
      write(mark, sign);
      style(was, "--w", now.before.p[f]);
      style(is, "--w", now.after.p[f]);
      attribute(node, "aria-pressed", String(f === state.fact));
      attribute(node, "aria-label", `fact ${f}: probability ${fixed(now.before.p[f])} as trained, ${fixed(now.after.p[f])} now${words && `, ${words}`}`);
      node.classList.toggle("is-off", sign !== "" && sign !== " –");
      node.classList.toggle("is-gone", sign === " –");
    });
    for (const [one, { node, bar }] of switches) {
      const g = importance(one, state.fact);
      style(bar, "--w", g);
      attribute(node, "aria-pressed", String(state.off.has(one)));
      attribute(node, "aria-label", `piece ${one.id} of ${layers[one.l].label}, importance ${fixed(g)} on fact ${state.fact}`);
    }
    lists.forEach(({ count, own }, l) => write(count, `${own.length} of ${layers[l].all} matter on some key; ${chosen(l).length} chosen. Bars: importance on the key of fact ${state.fact}.`));
    const worst = order();
    hurt.forEach(({ node, was, is, name, numbers }, i) => {
      const [drop, f] = worst[i] ?? [0, 0];
      node.hidden = !(drop >= HURT);
      attribute(node, "data-key", `f${f}`);
      write(name, `fact ${f}`);
      style(was, "--w", now.before.p[f]);
      style(is, "--w", now.after.p[f]);
      write(numbers, `${three(now.before.p[f])} → ${three(now.after.p[f])}`);
      node.classList.toggle("is-off", knew(f) && !knows(f));
    });
    const harmless = worst.filter(([drop]) => drop < HURT).length;
    write(spared, `${harmless} of ${worst.length} facts lose less than ${HURT}.`);
    rows.forEach(([, dd], l) => {
      const { norm, rank } = done.extents[l];
      write(dd, norm ? `${chosen(l).length} of ${plural(layers[l].all, "piece")}: rank ${rank}, ‖ΔW‖ = ${fixed(norm / layers[l].size, 3)} ‖W‖` : "untouched");
    });
    const table = model.layers.map((layer, l) => [layer.name, chosen(l).map((one) => one.id).sort((a, b) => a - b)]).filter(([, ids]) => ids.length);
    const dict = `{${table.map(([name, ids]) => `"${name}": [${ids.join(", ")}]`).join(", ")}}`;
    write(python, state.factor === 0 ? `edit.delete(d, ${dict})` : `edit.scale(d, ${dict}, ${+state.factor.toFixed(2)})`);
    write(text, story());
    tell();
  }

  // For tests and the curious: the same mathematics on inputs and factors of your own.
  const forward = ({ x, masks }) => {
    const m = masks.map((layer) => Float64Array.from(layer));
    const plain = M.edited(model, m);
    return { target: M.target(model, x).output, output: M.masked(model, x, m).output, edited: M.target(plain, x).output };
  };
  const asked = () => ({ ...compute(), extents: done.extents });
  return { draw, state, model, forward, asked };
}
