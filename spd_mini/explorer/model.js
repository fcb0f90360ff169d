// The mathematics of the explorer: no DOM here. Shapes follow the package: W (d_out, d_in),
// U (d_out, C), V (C, d_in), all row-major; one input at a time; sums run in double precision.

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// Two ways in which numbers travel: exact float32, byte plane by byte plane; or as multiples q of
// 2^-digits, each with L zeros, then |q| / 2^low + 1 in L + 1 bits, `low` bits more, and the sign.
export function decode(data, length) {
  if (typeof data !== "string") return unpack(data, length);
  const bytes = bytesOf(data);
  if (bytes.length !== 4 * length) throw new Error(`array of ${bytes.length} bytes, not ${4 * length}`);
  const view = new DataView(new ArrayBuffer(bytes.length)); // from byte planes back to numbers
  bytes.forEach((byte, k) => view.setUint8(4 * (k % length) + Math.floor(k / length), byte));
  return Float64Array.from({ length }, (_, i) => view.getFloat32(4 * i, true));
}

function unpack({ digits, low, bits }, length) {
  const bytes = bytesOf(bits);
  let at = 0;
  const bit = () => (bytes[at >> 3] >> (7 - (at++ & 7))) & 1;
  const values = Float64Array.from({ length }, () => {
    let zeros = 0;
    while (!bit()) if (++zeros > 64) throw new Error(`array of ${bytes.length} bytes ends too soon`);
    let q = 1;
    for (let k = zeros + low; k > 0; k--) q = 2 * q + bit();
    q -= 2 ** low;
    return (q && bit() ? -q : q) / 2 ** digits;
  });
  if (Math.ceil(at / 8) !== bytes.length) throw new Error(`array of ${bytes.length} bytes, not ${Math.ceil(at / 8)}`);
  return values;
}

export const transpose = (A, rows, cols) =>
  Float64Array.from({ length: A.length }, (_, i) => A[(i % rows) * cols + Math.floor(i / rows)]);

// A (rows, cols) times v, added to out; `scale` multiplies v entry by entry (the mask).
export function apply(A, v, out, scale = null) {
  const cols = v.length;
  for (let i = 0, k = 0; i < out.length; i++) {
    let sum = 0;
    if (scale) for (let j = 0; j < cols; j++, k++) sum += A[k] * v[j] * scale[j];
    else for (let j = 0; j < cols; j++, k++) sum += A[k] * v[j];
    out[i] += sum;
  }
  return out;
}

// A (rows, cols), transposed, times v, added to out.
export function applyTransposed(A, v, out) {
  const cols = out.length;
  for (let i = 0; i < v.length; i++)
    if (v[i] !== 0) for (let j = 0, k = i * cols; j < cols; j++, k++) out[j] += v[i] * A[k];
  return out;
}

// A matrix (rows, …) cut after its first `cols` columns.
export function split(A, rows, cols) {
  const all = A.length / rows;
  const pick = (from, to) => Float64Array.from({ length: rows * (to - from) }, (_, i) => A[Math.floor(i / (to - from)) * all + from + (i % (to - from))]);
  return [pick(0, cols), pick(cols, all)];
}

// A symmetric matrix from its rows' parts right of the diagonal and on it.
export function symmetric(upper, n) {
  const out = new Float64Array(n * n);
  for (let i = 0, k = 0; i < n; i++) for (let j = i; j < n; j++, k++) out[i * n + j] = out[j * n + i] = upper[k];
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

export const activations = { none: (z) => z, relu: (z) => Math.max(z, 0) };

export function readGate({ d_gate, w_in, b_in, w_out, b_out }, C) {
  const [a, b, c] = [w_in, b_in, w_out].map((text) => decode(text, C * d_gate));
  return { d_gate, w_in: a, b_in: b, w_out: c, b_out: decode(b_out, C) };
}

// Every kind of model is a list of layers, each reading a sum over sources: `from` names them, −1 the
// input, else an earlier layer. V (and W) hold one matrix a source. Layers are of two sorts:
// - most write U diag(m) h in the coordinates of what follows, plus a bias, through a ReLU or not;
// - one that writes into a wide residual stream has no U: it hands on its coefficients, [0 | a] in
//   the target and [m h | 0] in the masked model, and whoever reads the stream has the products of
//   its own rows with [U | W]. Exact, and nothing as long as the stream travels. The last such
//   reader gives the output: `out`.
// Where not all subcomponents are shown (`payload.rest`) the others stay on: W + U diag(m − 1) V.
// Pathways side by side: their last layers, `ends`, add up to the output.
function readLayer(raw, l, earlier, widths, n) {
  const { d_out, d_in, C } = raw;
  const from = raw.from ?? [l - 1];
  const blocks = (list, rows) => list.map((text, k) => decode(text, rows * (from[k] < 0 ? n : widths[from[k]])));
  // A tied layer is the transpose of an earlier one and travels once (its gates are its own).
  const twin = raw.tied && earlier.find((layer) => layer.name === raw.tied);
  const layer = { ...raw, from, bias: raw.bias ? decode(raw.bias, d_out) : null };
  widths.push(raw.writes ? C + d_in : d_out);
  if (raw.W) layer.W = blocks([raw.W].flat(), d_out);
  if (twin) layer.W = [transpose(twin.W[0], d_in, d_out)];
  if (!C) return layer;
  if (!raw.writes) layer.U = twin ? transpose(twin.V[0], C, d_out) : decode(raw.U, d_out * C);
  layer.V = twin ? [transpose(twin.U, d_in, C)] : blocks([raw.V].flat(), C);
  if (raw.gate) layer.gate = readGate(raw.gate, C);
  if (raw.source) layer.source = decode(raw.source, C);
  return layer;
}

export function build(payload) {
  if (payload.format !== 1) throw new Error(`payload format ${payload.format} is not known`);
  const [layers, widths] = [[], []];
  const n = payload.out?.n ?? payload.layers[0].d_in;
  payload.layers.forEach((raw, l) => layers.push(readLayer(raw, l, layers, widths, n)));
  const ends = payload.ends ?? [layers.length - 1];
  const model = { layers, widths, ends, rest: Boolean(payload.rest), act: activations[payload.activation] };
  if (payload.out) {
    const { from, embed, V } = payload.out;
    model.out = { n, from, V: [symmetric(decode(embed, (n * (n + 1)) / 2), n), ...V.map((text, k) => decode(text, n * widths[from[k + 1]]))] };
  }
  // From this layer on the output is affine in each mask.
  model.affine = layers.findLastIndex((layer) => layer.relu) + 1;
  return model;
}

export const ones = (model) => model.layers.map((layer) => new Float64Array(layer.C).fill(1));

const sum = (blocks, inputs, rows) => blocks.reduce((out, A, k) => apply(A, inputs[k], out), new Float64Array(rows));

// What stands in the diagonal between U and V: the masks, less 1 where W itself stays.
export const strength = (model, masks) => (model.rest ? masks.map((m) => m - 1) : masks);

// One pass on x, the target's where masks is null, else the masked model's: the input a, h = V a and
// pre-activation of each layer, the last pre-activation z, the output.
function pass(model, x, masks) {
  const [acts, h, pre, values] = [[], [], [], []];
  const inputsOf = (from) => from.map((k) => (k < 0 ? x : values[k]));
  model.layers.forEach((layer, l) => {
    const { C, U, V, W, d_out } = layer;
    const inputs = inputsOf(layer.from);
    acts.push(inputs[0]);
    h.push(C ? sum(V, inputs, C) : []);
    const m = masks && strength(model, masks[l]);
    const whole = !masks || model.rest; // W itself takes part
    let z = new Float64Array(layer.writes ? C + inputs[0].length : d_out);
    if (layer.writes) {
      if (masks) z.set(h[l].map((v, c) => m[c] * v));
      if (whole) z.set(inputs[0], C);
    } else {
      if (whole) z = sum(W, inputs, d_out);
      if (masks) apply(U, h[l], z, m);
    }
    if (layer.bias) z = z.map((v, i) => v + layer.bias[i]);
    pre.push(z);
    values.push(layer.relu ? z.map(activations.relu) : z);
  });
  const ending = () => model.ends.map((l) => pre[l]).reduce((a, b) => a.map((v, i) => v + b[i]));
  const z = model.out ? sum(model.out.V, inputsOf(model.out.from), x.length) : ending();
  return { acts, h, pre, z, output: z.map(model.act) };
}

// The target on x: activations a before each layer, h = V a, logits, importances g, and the output.
// `table` gives the importances of hand-built layers that have no importance function.
export function target(model, x, table = null) {
  const on = pass(model, Float64Array.from(x), null);
  const gamma = model.layers.map((layer, l) =>
    on.h[l].map((value, c) => (layer.gate ? logit(layer.gate, c, value) : table ? table[l][c] : 0)));
  return { ...on, gamma, g: gamma.map((v) => v.map(clamp01)) };
}

export const masked = (model, x, masks) => pass(model, Float64Array.from(x), masks);

// What factors m of its pieces add to the weight of a layer with one source: U diag(m − 1) V (d_out,
// d_in); null where every factor is 1.
export function change({ U, V, C, d_in, d_out }, m) {
  const moved = Array.from(m.keys()).filter((c) => m[c] !== 1);
  if (!moved.length) return null;
  const delta = new Float64Array(d_out * d_in);
  for (const c of moved)
    for (let i = 0, k = 0; i < d_out; i++) {
      const u = (m[c] - 1) * U[i * C + c];
      for (let j = c * d_in; j < (c + 1) * d_in; j++, k++) delta[k] += u * V[0][j];
    }
  return delta;
}

// The same change in the weights for good: a plain model, without pieces or masks.
export function edited(model, masks) {
  const layers = model.layers.map((layer, l) => {
    const delta = change(layer, masks[l]);
    return { ...layer, C: 0, W: delta ? [layer.W[0].map((w, k) => w + delta[k])] : layer.W };
  });
  return { ...model, layers };
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
