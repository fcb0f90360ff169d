// The pictures of the mask board: what a layer's subcomponents write, times their masks. Each takes the
// board, { model, state, keyOf, labels, passes }, and a layer's number, and gives { figure, set }.
import { split } from "./model.js";
import { dash, heat, hue, outputName, picture, plane, sub } from "./ui.js";

// Columns of W (rows, where W writes out of the plane) as ink arrows; each subcomponent's share of
// them in its colour, scaled by its mask; the hidden vector of target and masked model as dots.
export function arrows({ model, state, keyOf, labels, passes }, l) {
  const layer = model.layers[l];
  const { U, V: [V], W: [W], C, d_in, d_out } = layer;
  const writes = d_out === 2;
  const n = writes ? d_in : d_out;
  const entry = (A, j) => (writes ? [A[j], A[d_in + j]] : [A[2 * j], A[2 * j + 1]]);
  const piece = (c, j) => (writes ? [U[c] * V[c * d_in + j], U[C + c] * V[c * d_in + j]] : [U[j * C + c] * V[2 * c], U[j * C + c] * V[2 * c + 1]]);
  const columns = Array.from({ length: n }, (_, j) => entry(W, j));
  const reach = Math.max(...columns.map(([a, b]) => Math.hypot(a, b))) * 1.1;
  const drawing = plane(`${writes ? "columns" : "rows"} of ${layer.label} as arrows, with what each subcomponent contributes to them`, reach);
  const drawn = [];
  layer.live.forEach((c, i) => {
    for (let j = 0; j < n; j++) {
      const [a, b] = piece(c, j);
      if (Math.hypot(a, b) < 0.06 * reach) continue;
      const arrow = drawing.arrow({ class: "spd-piece", "data-key": keyOf(l, c), style: `stroke:${hue(layer.slots[i])}`, "stroke-dasharray": dash(layer.slots[i]) });
      drawn.push({ arrow, c, a, b });
    }
  });
  columns.forEach(([a, b], j) => {
    drawing.arrow({ class: "spd-column" }).set(a, b);
    drawing.text(writes && l > 0 ? `e${sub(j)}` : (writes ? labels[j] : outputName(labels[j])), a, b);
  });
  const dots = writes ? [drawing.dot({ class: "spd-dot is-target", r: 6 }), drawing.dot({ class: "spd-dot is-masked", r: 3.5 })] : [];
  const what = writes ? "columns" : "rows";
  const figure = picture(drawing.root, `Ink: ${what} of the weight. Colour: what each subcomponent gives, times its mask.${writes ? " Dots: the vector written now." : ""}`);
  return { figure, set: () => {
    for (const { arrow, c, a, b } of drawn) arrow.set(a * state.masks[l][c], b * state.masks[l][c]);
    if (!writes) return;
    passes().forEach(({ acts, z }, i) => {
      const [x, y] = acts[l + 1] ?? z;
      dots[i].set(x, y);
    });
  } };
}

// A layer's W, U and V where the page has them: those of a residual stream as seen from the input
// (its first source) and from the outputs.
function seen(model, l) {
  const layer = model.layers[l];
  if (!layer.writes) return { U: layer.U, V: layer.V[0], W: layer.W[0], rows: layer.d_out, cols: layer.V[0].length / layer.C };
  const rows = model.out.n;
  const [U, W] = split(model.out.V[model.out.from.indexOf(l)], rows, layer.C);
  return { U, V: layer.V[0], W, rows, cols: layer.d_in };
}

// In higher dimensions: which share of each column (row) of W a subcomponent carries, as the
// projection of its piece on that column; a column's shares add up to 1.
export function shares({ model, state, keyOf }, l) {
  const layer = model.layers[l];
  const { U, V, W, rows, cols } = seen(model, l);
  const byColumn = rows <= cols;
  const [n, size] = byColumn ? [cols, rows] : [rows, cols];
  const table = layer.live.map((c) => Array.from({ length: n }, (_, j) => {
    let [dot, norm] = [0, 0];
    for (let k = 0; k < size; k++) {
      const w = byColumn ? W[k * cols + j] : W[j * cols + k];
      norm += w * w;
      dot += w * (byColumn ? U[k * layer.C + c] : V[c * cols + k]);
    }
    return norm ? (dot * (byColumn ? V[c * cols + j] : U[j * layer.C + c])) / norm : 0;
  }));
  const what = byColumn ? "column" : "row";
  const of = layer.writes ? "the weight, seen at the outputs" : model.out ? "the weight, seen from the inputs" : "the weight";
  const map = heat(`share of each ${what} of ${layer.label} that each subcomponent carries`, table.length, n, layer.slots, layer.live.map((c) => keyOf(l, c)));
  if (table.length) map.root.style.aspectRatio = Math.max(1, n / table.length);
  table.forEach((row, i) => row.forEach((share, j) => map.set(i, j, share)));
  const figure = picture(map.root, `Across: ${what}s of ${of}. Down: subcomponents. Colour: the share of the ${what} each carries, times its mask.`);
  return { figure, set: () => layer.live.forEach((c, i) => map.fade(i, state.masks[l][c])) };
}
