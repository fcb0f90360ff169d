// A model of facts asked about all of them at once, by their keys and by paraphrases of those: no DOM.

// The rows of A (n, width) times a layer's W, transposed: (n, d_out).
function products(A, { W: [W], d_in, d_out }) {
  const out = new Float64Array((A.length / d_in) * d_out);
  for (let r = 0, o = 0; r < A.length; r += d_in)
    for (let i = 0; i < d_out; i++, o++) {
      let sum = 0;
      for (let j = 0, k = i * d_in; j < d_in; j++, k++) sum += W[k] * A[r + j];
      out[o] = sum;
    }
  return out;
}

// What the first layers of a plain model read from keys and noises. A paraphrase is a sum, key +
// noise, and so is what is read from it: the strength of the noise can move without this.
export const reading = (model, keys, noise) =>
  model.layers.map((layer) => (layer.from[0] < 0 ? { keys: products(keys, layer), noise: products(noise, layer) } : null));

// Per fact: p, the mean probability of its answer over its paraphrases (without noise: its clean key),
// and says, the answer with the highest mean.
export function recall(model, read, answers, strength) {
  const n = answers.length;
  const m = model.layers[model.ends[0]].d_out;
  const paths = model.ends.map((l) => {
    const { bias, d_out: width } = model.layers[l - 1];
    const { W: [W], bias: shift } = model.layers[l];
    // what each neuron writes: most of them are off, and are left out
    const writes = new Float64Array(W.length);
    for (let o = 0, k = 0; o < m; o++) for (let i = 0; i < width; i++, k++) writes[i * m + o] = W[k];
    return { ...read[l - 1], width, bias: bias ?? new Float64Array(width), shift: shift ?? new Float64Array(m), writes };
  });
  const draws = strength ? paths[0].noise.length / paths[0].width : 1;
  const mean = new Float64Array(n * m);
  const logits = new Float64Array(m);
  for (let f = 0; f < n; f++)
    for (let d = 0; d < draws; d++) {
      logits.fill(0);
      for (const { keys, noise, width, bias, shift, writes } of paths) {
        for (let o = 0; o < m; o++) logits[o] += shift[o];
        for (let i = 0; i < width; i++) {
          const a = keys[f * width + i] + strength * noise[d * width + i] + bias[i];
          if (a > 0) for (let o = 0, at = i * m; o < m; o++, at++) logits[o] += a * writes[at];
        }
      }
      let [high, sum] = [-Infinity, 0];
      for (let o = 0; o < m; o++) if (logits[o] > high) high = logits[o];
      for (let o = 0; o < m; o++) sum += logits[o] = Math.exp(logits[o] - high);
      for (let o = 0; o < m; o++) mean[f * m + o] += logits[o] / (sum * draws);
    }
  const says = Array.from(answers, (_, f) => mean.subarray(f * m, (f + 1) * m).reduce((best, v, o, row) => (v > row[best] ? o : best), 0));
  return { p: Float64Array.from(answers, (a, f) => mean[f * m + a]), says };
}

const norm = (A) => Math.sqrt(A.reduce((sum, v) => sum + v * v, 0));

// How much factors m of its pieces change a layer's weight, by the products of the pieces with each
// other: the change is U diag(m − 1) V, and has the rank of UᵀU · VVᵀ over the pieces moved.
export function extent({ U, C, d_out, gram }, m) {
  const moved = Array.from(m.keys()).filter((c) => m[c] !== 1);
  const n = moved.length;
  const [writes, both] = [new Float64Array(n * n), new Float64Array(n * n)];
  let square = 0;
  moved.forEach((a, i) => moved.forEach((b, j) => {
    for (let o = 0; o < d_out; o++) writes[i * n + j] += U[o * C + a] * U[o * C + b];
    square += (m[a] - 1) * (m[b] - 1) * writes[i * n + j] * gram[a * C + b];
  }));
  moved.forEach((_, i) => moved.forEach((b, j) => moved.forEach((c, k) => (both[i * n + j] += writes[i * n + k] * gram[c * C + b]))));
  return { norm: Math.sqrt(Math.max(0, square)), rank: rank(both, n) };
}

// The rank of A (rows, cols): how many directions its rows have, the longest that is left first.
function rank(A, cols) {
  if (!cols) return 0;
  const left = Array.from({ length: A.length / cols }, (_, i) => A.slice(i * cols, (i + 1) * cols));
  const enough = 1e-9 * norm(A);
  for (let found = 0; ; found++) {
    const lengths = left.map(norm);
    const best = lengths.indexOf(Math.max(...lengths));
    if (!(lengths[best] > enough)) return found;
    const q = left[best].map((v) => v / lengths[best]);
    for (const row of left) {
      const along = row.reduce((sum, v, j) => sum + v * q[j], 0);
      for (let j = 0; j < cols; j++) row[j] -= along * q[j];
    }
  }
}
