// The mathematics of the explorer: no DOM here. Shapes follow the package: W (d_out, d_in),
// U (d_out, C), V (C, d_in), all row-major; one input at a time; sums run in double precision.

const decode = (text, length) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  if (bytes.length !== 4 * length) throw new Error(`array of ${bytes.length} bytes, not ${4 * length}`);
  const view = new DataView(new ArrayBuffer(bytes.length)); // from byte planes back to numbers
  bytes.forEach((byte, k) => view.setUint8(4 * (k % length) + Math.floor(k / length), byte));
  return Float64Array.from({ length }, (_, i) => view.getFloat32(4 * i, true));
};

export const transpose = (A, rows, cols) =>
  Float64Array.from({ length: A.length }, (_, i) => A[(i % rows) * cols + Math.floor(i / rows)]);

// A (rows, cols) times v, written into out; `scale` multiplies v entry by entry (the mask).
export function apply(A, v, out, scale = null) {
  const cols = v.length;
  for (let i = 0, k = 0; i < out.length; i++) {
    let sum = 0;
    if (scale) for (let j = 0; j < cols; j++, k++) sum += A[k] * v[j] * scale[j];
    else for (let j = 0; j < cols; j++, k++) sum += A[k] * v[j];
    out[i] = sum;
  }
  return out;
}

function product(A, B, rows, inner, cols) {
  const out = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++)
      for (let j = 0; j < cols; j++) out[i * cols + j] += A[i * inner + k] * B[k * cols + j];
  return out;
}

// erf by the series 2/sqrt(pi) exp(-z²) Σ 2^n z^(2n+1) / (2n+1)!!: every term has the same sign, so
// nothing cancels and the sum is good to double precision.
export function erf(z) {
  const size = Math.abs(z);
  if (size > 6) return Math.sign(z);
  let term = size;
  let sum = size;
  for (let n = 1; term > 1e-17 * sum; n++) sum += term *= (2 * size * size) / (2 * n + 1);
  return Math.sign(z) * (2 / Math.sqrt(Math.PI)) * Math.exp(-size * size) * sum;
}

export const gelu = (z) => 0.5 * z * (1 + erf(z / Math.SQRT2));
export const clamp01 = (z) => Math.min(1, Math.max(0, z));
export const lowerLeaky = (z) => (z < 0 ? 0.01 * z : Math.min(z, 1));
export const upperLeaky = (z) => (z > 1 ? 1 + 0.01 * (z - 1) : Math.max(z, 0));

// Importance logit γ_c(h) = w_out_c · gelu(w_in_c h + b_in_c) + b_out_c of one subcomponent.
export function logit(gate, c, h) {
  const d = gate.d_gate;
  let sum = gate.b_out[c];
  for (let k = c * d; k < (c + 1) * d; k++) sum += gate.w_out[k] * gelu(gate.w_in[k] * h + gate.b_in[k]);
  return sum;
}

const activations = { none: (z) => z, relu: (z) => Math.max(z, 0) };

export function readGate({ d_gate, w_in, b_in, w_out, b_out }, C) {
  const [a, b, c] = [w_in, b_in, w_out].map((text) => decode(text, C * d_gate));
  return { d_gate, w_in: a, b_in: b, w_out: c, b_out: decode(b_out, C) };
}

function readLayer(raw, earlier) {
  const { d_out, d_in, C } = raw;
  // A tied layer is the transpose of an earlier one and travels once (its gates are its own).
  const twin = raw.tied && earlier.find((layer) => layer.name === raw.tied);
  const layer = {
    ...raw,
    W: twin ? transpose(twin.W, d_in, d_out) : decode(raw.W, d_out * d_in),
    bias: raw.bias ? decode(raw.bias, d_out) : new Float64Array(d_out),
  };
  if (!C) return layer;
  layer.U = twin ? transpose(twin.V, C, d_out) : decode(raw.U, d_out * C);
  layer.V = twin ? transpose(twin.U, d_in, C) : decode(raw.V, C * d_in);
  if (raw.gate) layer.gate = readGate(raw.gate, C);
  if (raw.source) layer.source = decode(raw.source, C);
  return layer;
}

// Kinds of model. Each gives `run(model, x, linear)`, where linear(l, a) is what layer l makes of its
// input a: the target passes W a, the masked model U diag(m) V a. A new kind is one more entry.
const kinds = {
  chain: (model, x, linear) => {
    let a = x;
    model.layers.forEach((layer, l) => (a = linear(l, a).map((z, i) => z + layer.bias[i])));
    return a;
  },
};

export function build(payload) {
  if (payload.format !== 1) throw new Error(`payload format ${payload.format} is not known`);
  if (!kinds[payload.kind]) throw new Error(`model kind ${payload.kind} is not known`);
  const layers = [];
  for (const raw of payload.layers) layers.push(readLayer(raw, layers));
  const model = { layers, run: kinds[payload.kind], act: activations[payload.activation] };
  // What one unit written by layer l adds to the last pre-activation when all later masks are 1.
  let down = null;
  for (const layer of layers.toReversed()) {
    if (!layer.C) break;
    const { U, V, C, d_in, d_out } = layer;
    const last = layers.at(-1).d_out;
    layer.reach = down ? product(down, U, last, d_out, C) : U;
    down = product(layer.reach, V, last, C, d_in);
  }
  return model;
}

export const ones = (model) => model.layers.map((layer) => new Float64Array(layer.C).fill(1));

// The target on x: activations a before each layer, h = V a, logits, importances g, and the output.
// `table` gives the importances of hand-built layers that have no importance function.
export function target(model, x, table = null) {
  const acts = [];
  const z = model.run(model, Float64Array.from(x), (l, a) => {
    acts.push(a);
    return apply(model.layers[l].W, a, new Float64Array(model.layers[l].d_out));
  });
  const h = model.layers.map((layer, l) => (layer.C ? apply(layer.V, acts[l], new Float64Array(layer.C)) : []));
  const gamma = model.layers.map((layer, l) =>
    h[l].map((value, c) => (layer.gate ? logit(layer.gate, c, value) : table ? table[l][c] : 0)));
  return { acts, h, gamma, g: gamma.map((v) => v.map(clamp01)), z, output: z.map(model.act) };
}

// The masked model on x: W replaced by U diag(m) V in every layer.
export function masked(model, x, masks) {
  const h = [];
  const acts = [];
  const z = model.run(model, Float64Array.from(x), (l, a) => {
    const { U, V, C, d_out } = model.layers[l];
    acts.push(a);
    h.push(apply(V, a, new Float64Array(C)));
    return apply(U, h[l], new Float64Array(d_out), masks[l]);
  });
  return { acts, h, z, output: z.map(model.act) };
}

export function difference(a, b) {
  let max = 0;
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    max = Math.max(max, Math.abs(a[i] - b[i]));
    sum += (a[i] - b[i]) ** 2;
  }
  return { max, mse: sum / a.length };
}

// How far one mask can be pulled down from 1, every other mask being 1, before some output is off by
// more than `limit`. The last pre-activation is affine in that mask, so each output allows an
// interval and the answer is exact. `full` is masked(model, x, ones(model)). Returns per layer the
// mask value at which the output breaks; null where even 0 does not break it.
export function breakPoints(model, full, want, limit) {
  const relu = model.act === activations.relu;
  return model.layers.map((layer, l) => Array.from({ length: layer.C }, (_, c) => {
    let drop = Infinity;
    for (let o = 0; o < want.length; o++) {
      const slope = layer.reach[o * layer.C + c] * full.h[l][c];
      const low = relu && want[o] <= limit ? -Infinity : want[o] - limit;
      const room = slope > 0 ? full.z[o] - low : want[o] + limit - full.z[o];
      if (slope !== 0) drop = Math.min(drop, Math.max(0, room) / Math.abs(slope));
    }
    return drop > 1 ? null : 1 - drop;
  }));
}

// Slope of pre-activation `o` in the masks of layer `l`, at the masks given: the chain rule by hand.
function slopes(model, run, masks, o, l) {
  let back = new Float64Array(model.layers.at(-1).d_out);
  back[o] = 1;
  for (let k = model.layers.length - 1; ; k--) {
    const { U, V, C, d_in, d_out } = model.layers[k];
    const write = new Float64Array(C);
    for (let i = 0; i < d_out; i++)
      if (back[i] !== 0) for (let c = 0; c < C; c++) write[c] += back[i] * U[i * C + c];
    if (k === l) return write.map((w, c) => w * run.h[l][c]);
    back = new Float64Array(d_in);
    for (let c = 0; c < C; c++)
      if (masks[k][c] !== 0) for (let j = 0; j < d_in; j++) back[j] += write[c] * masks[k][c] * V[c * d_in + j];
  }
}

// Worst allowed masks (g ≤ m ≤ 1): those that move some output furthest. An output is affine in each
// single mask, and |activation − wanted| is quasi-convex in it, so a corner is never beaten: masks
// are only ever g or 1. Two searches share this:
// - every corner of the subcomponents in `free`, a list of [layer, c], the others as in `start`;
// - ascent: for one output and one direction, the best masks of one layer given the others are read
//   off the signs of the slopes, exactly; repeat over layers until nothing moves.
export function corners(model, x, ideal, free, start) {
  const masks = start.map((m) => m.slice());
  let best = { max: -1 };
  for (let code = 0; code < 2 ** free.length; code++) {
    free.forEach(([l, c], k) => (masks[l][c] = (code >> k) & 1 ? 1 : ideal.g[l][c]));
    const { max } = difference(masked(model, x, masks).output, ideal.output);
    if (max > best.max) best = { max, masks: masks.map((m) => m.slice()) };
  }
  return best;
}

export function ascend(model, x, ideal, start, outputs = null) {
  let best = { max: difference(masked(model, x, start).output, ideal.output).max, masks: start };
  const reached = [];
  for (const o of outputs ?? ideal.output.keys())
    for (const sign of [1, -1]) {
      const masks = start.map((m) => m.slice());
      for (let moved = true, pass = 0; moved && pass < 20; pass++) {
        moved = false;
        for (let l = 0; l < masks.length; l++) {
          const slope = slopes(model, masked(model, x, masks), masks, o, l);
          masks[l].forEach((m, c) => {
            const to = sign * slope[c] > 0 ? 1 : ideal.g[l][c];
            if (slope[c] * (to - m) !== 0) moved = true;
            masks[l][c] = to;
          });
        }
      }
      const { max } = difference(masked(model, x, masks).output, ideal.output);
      reached.push([max, o]);
      if (max > best.max) best = { max, masks };
    }
  return { ...best, reached };
}

// Up to 14 free subcomponents (those in `candidates` with g < 1): all corners, then ascent over the
// rest from the best one. More: ascent also from random corners, for the outputs that moved most.
// `exact` says that nothing was left out.
export function worst(model, x, ideal, candidates, random, starts = 4) {
  const free = candidates.filter(([l, c]) => ideal.g[l][c] < 1);
  const rest = ideal.g.reduce((n, g) => n + g.filter((v) => v < 1).length, 0) - free.length;
  const all = ones(model);
  let best = ascend(model, x, ideal, all);
  const promising = new Set(best.reached.sort((a, b) => b[0] - a[0]).slice(0, 4).map(([, o]) => o));
  const consider = (found) => (best = found.max > best.max ? found : best);
  if (free.length <= 14) consider(ascend(model, x, ideal, corners(model, x, ideal, free, all).masks));
  else
    for (let k = 0; k < starts; k++)
      consider(ascend(model, x, ideal, all.map((m, l) => m.map((_, c) => (random() < 0.5 ? ideal.g[l][c] : 1))), promising));
  return { ...best, exact: free.length <= 14 && rest === 0 };
}

// Allowed masks m = g + (1 − g) r for a source r in [0, 1].
export const fromSource = (g, r) => g.map((layer, l) => layer.map((v, c) => v + (1 - v) * r[l][c]));

// A small seeded generator (a Weyl sequence, hashed), so that a page opens the same way every time.
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}
