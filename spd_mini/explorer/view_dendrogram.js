// View "dendrogram": subcomponents joined into groups below a height that the reader moves.
import { attribute, button, el, hue, named, picture, plural, style, svg, write } from "./ui.js";

const HEIGHT = 220;

export function view({ root, payload, redraw }) {
  const { modules, leaves, joins, best, serves, labels, truth, threshold: own } = payload;
  const k = leaves.length;
  const top = 1.05 * Math.max(own, ...joins.map(([, , h]) => h));
  const state = { threshold: own, group: -1 };
  let groups = []; // [{ key, members, slot }], largest first
  let groupOf = []; // of each node of the tree: its group, null above the threshold
  let lit = null;

  // --- the tree: leaves side by side, each join an arch between the middles of its sides --------
  const middle = [];
  const members = [];
  {
    const children = (node) => (node < k ? [node] : [...children(joins[node - k][0]), ...children(joins[node - k][1])]);
    children(k + joins.length - 1).forEach((leaf, place) => (middle[leaf] = place + 0.5));
    for (let node = 0; node < k + joins.length; node++) members[node] = children(node);
  }
  joins.forEach(([a, b], i) => (middle[k + i] = (middle[a] + middle[b]) / 2));
  const heightOf = (node) => (node < k ? 0 : joins[node - k][2]);
  const y = (h) => HEIGHT * (1 - h / top);
  const tree = svg("svg", { viewBox: `0 0 ${k} ${HEIGHT}`, preserveAspectRatio: "none", class: "spd-tree", role: "img", "aria-label": "the joins as a tree, leaves below, height upwards" });
  const arches = joins.map(([a, b, h]) => svg("path", { d: `M${middle[a]} ${y(heightOf(a))}V${y(h)}H${middle[b]}V${y(heightOf(b))}` }));
  const feet = leaves.map((_, leaf) => svg("path", { d: `M${middle[leaf]} ${HEIGHT - 5}v5` }));
  const line = svg("path", { class: "spd-line-now" });
  tree.append(...feet, ...arches, svg("path", { class: "spd-own", d: `M0 ${y(own)}H${k}` }), line);

  // --- features across, matrices down: which group has the subcomponent that serves the feature ---
  const board = svg("svg", { viewBox: `0 0 ${labels.length} ${modules.length}`, preserveAspectRatio: "none", class: "spd-served", role: "img", "aria-label": "for each feature and matrix, the group of the subcomponent that serves it best" });
  const cells = best.flatMap((row, m) => row.map((leaf, j) => ({ leaf, node: svg("rect", { x: j, y: m + 0.06, width: 1, height: 0.88 }) }))).filter(({ leaf }) => leaf !== null);
  board.append(...cells.map(({ node }) => node));

  // --- controls ------------------------------------------------------------------------------
  const height = named("height", { max: top, step: top / 200, value: own, oninput: (v) => {
    state.threshold = v;
    state.group = -1;
    redraw();
  }, aside: [el("span", { class: "spd-g" })] });
  style(height.track, "--g", own / top);
  const look = named("group", { min: -1, max: k - 1, step: 1, value: -1, oninput: (v) => {
    state.group = Math.min(v, groups.length - 1);
    point();
    redraw();
  }, format: (v) => (v < 0 ? "none" : String(v)) });
  const point = () => root.dispatchEvent(new CustomEvent("spd-point", { detail: groups[state.group]?.key ?? null }));
  const reset = button("The criterion's own height", () => {
    Object.assign(state, { threshold: own, group: -1 });
    point();
    redraw();
  });
  const text = el("p", { class: "spd-text", role: "status", "aria-live": "polite" });
  const hand = el("p", { class: "spd-hand" });
  root.append(
    el("div", { class: "spd-controls" }, el("div", { class: "spd-wide" }, height.root), reset),
    text,
    el("section", { class: "spd-panel", "aria-label": "tree of joins" }, picture(tree, `Below: ${plural(k, "subcomponent")}. Joins under the line are made: each group in one colour, singles grey. Dotted: the height that the criterion chose.`)),
    el("section", { class: "spd-panel", "aria-label": "groups by feature and matrix" }, el("h4", {}, "Who serves which feature"),
      el("div", { class: "spd-beside" }, el("div", {}, ...modules.map((name) => el("span", {}, name))), board),
      el("p", { class: "spd-hand" }, `Across: features ${labels[0]} to ${labels.at(-1)}. Down: matrices. Colour: the group of the subcomponent that serves the feature best; one colour down a column: one mechanism.`)),
    el("div", { class: "spd-wide" }, look.root), hand);

  // Groups below the threshold: the largest subtrees whose join is lower.
  function cut() {
    const inside = (node) => node < k || joins[node - k][2] < state.threshold;
    groupOf = [];
    groups = [];
    for (let node = k + joins.length - 1; node >= 0; node--)
      if (groupOf[node] === undefined) {
        if (!inside(node)) continue;
        const group = { key: `group-${node}`, members: members[node] };
        groups.push(group);
        const mark = (child) => {
          groupOf[child] = group;
          if (child >= k) joins[child - k].slice(0, 2).forEach(mark);
        };
        mark(node);
      }
    groups.sort((a, b) => b.members.length - a.members.length || middle[a.members[0]] - middle[b.members[0]]);
    // Neighbours among the features look different: hues go round in the order of what is served.
    const firstServed = ({ members }) => Math.min(Infinity, ...members.flatMap((leaf) => serves[leaf]));
    const joined = groups.filter((group) => group.members.length > 1);
    joined.toSorted((a, b) => firstServed(a) - firstServed(b)).forEach((group, i) => (group.slot = i));
    for (const group of groups) group.slot ??= null;
  }
  const paint = (node, group, property) => {
    style(node, property, group ? hue(group.slot) : "var(--spd-soft)");
    attribute(node, "data-key", group?.key ?? "");
  };

  const list = (names, most) => names.slice(0, most).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");
  function tell() {
    const group = groups.find(({ key }) => key === lit);
    if (!group) return write(hand, "Point at a group, or choose one, to see its members.");
    const parts = modules.map((name, m) => [name, group.members.filter((leaf) => leaves[leaf][0] === m).map((leaf) => leaves[leaf][1])]).filter(([, own]) => own.length);
    const served = [...new Set(group.members.flatMap((leaf) => serves[leaf]))].sort((a, b) => a - b).map((j) => labels[j]);
    write(hand, `Group ${groups.indexOf(group)}, ${plural(group.members.length, "member")}: ${parts.map(([name, own]) => `${name} ${list(own, 6)}`).join("; ")}. Serves ${served.length === labels.length ? "every feature" : list(served, 8) || "no single feature"}.`);
  }
  root.addEventListener("spd-light", (e) => {
    if (e.detail === null && state.group >= 0) return point(); // the chosen one stays lit
    lit = e.detail;
    tell();
  });

  function draw() {
    cut();
    height.set(state.threshold);
    look.set(state.group);
    line.setAttribute("d", `M0 ${y(state.threshold)}H${k}`);
    arches.forEach((arch, i) => paint(arch, groupOf[k + i], "stroke"));
    feet.forEach((foot, leaf) => paint(foot, groupOf[leaf], "stroke"));
    cells.forEach(({ leaf, node }) => paint(node, groupOf[leaf], "fill"));
    const sizes = new Map();
    for (const { members: { length } } of groups) sizes.set(length, (sizes.get(length) ?? 0) + 1);
    const kinds = [...sizes].map(([size, times]) => `${times} of ${size}`);
    const found = truth?.filter((group) => groupOf[group[0]] && groupOf[group[0]].members.length === group.length && group.every((leaf) => groupOf[leaf] === groupOf[group[0]])).length;
    write(text, `${plural(groups.length, "group")}, by size: ${list(kinds, 6)}.${truth ? ` Of the ${truth.length} that ought to be found, ${found} are, member for member.` : ""}`);
    tell();
  }
  return { draw, state, groups: () => groups.map((group) => group.members) };
}
