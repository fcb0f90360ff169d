// What masks can do to the output: where one alone breaks it, and the worst that are allowed.
import { activations, applyTransposed, difference, masked, ones, strength } from "./model.js";

// Slope of pre-activation `o` in the masks of the layers from `first` on, at the masks given and the
// pass `now` made with them: the chain rule by hand. One array a layer, empty before `first`.
function slopes(model, now, masks, o, first) {
  const back = model.widths.map((width) => new Float64Array(width)); // d z_o / d value of each layer
  if (!model.out) model.ends.forEach((l) => (back[l][o] = 1));
  else model.out.V.forEach((A, k) => {
    const cols = A.length / now.z.length;
    if (k) back[model.out.from[k]].set(A.subarray(o * cols, (o + 1) * cols));
  });
  const result = model.layers.map(() => []);
  for (let l = model.layers.length - 1; l >= first; l--) {
    const { U, V, W, C, from, relu, writes } = model.layers[l];
    const down = relu ? back[l].map((b, i) => (now.pre[l][i] > 0 ? b : 0)) : back[l];
    const write = writes ? down.subarray(0, C) : applyTransposed(U, down, new Float64Array(C));
    result[l] = write.map((w, c) => w * now.h[l][c]);
    const m = strength(model, masks[l]);
    const scaled = write.map((w, c) => w * m[c]);
    from.forEach((k, b) => {
      if (k < first) return;
      applyTransposed(V[b], scaled, back[k]);
      if (!model.rest) return;
      if (writes) down.subarray(C).forEach((v, j) => (back[k][j] += v));
      else applyTransposed(W[b], down, back[k]);
    });
  }
  return result;
}

// How far one mask can be pulled down from 1, every other mask being 1, before some output is off by
// more than `limit`: the mask value at which it breaks; null where even 0 does not break it. Where
// the last pre-activation is affine in that mask each output allows an interval and the answer is
// exact; layers before a ReLU are left out here (undefined): `breakPoint` searches one of them.
export function breakPoints(model, x, want, limit) {
  const all = ones(model);
  const full = masked(model, x, all);
  const relu = model.act === activations.relu;
  // Per unit of h the slopes do not depend on x: no ReLU follows.
  model.reach ??= Array.from(want, (_, o) => slopes(model, { ...full, h: all }, all, o, model.affine));
  const drops = model.layers.map((layer, l) => (l < model.affine ? [] : new Float64Array(layer.C).fill(Infinity)));
  for (let o = 0; o < want.length; o++) {
    const low = relu && want[o] <= limit ? -Infinity : want[o] - limit;
    model.reach[o].forEach((layer, l) => layer.forEach((reach, c) => {
      const slope = reach * full.h[l][c];
      const room = slope > 0 ? full.z[o] - low : want[o] + limit - full.z[o];
      if (slope !== 0) drops[l][c] = Math.min(drops[l][c], Math.max(0, room) / Math.abs(slope));
    }));
  }
  return drops.map((layer) => Array.from(layer, (drop) => (drop > 1 ? null : 1 - drop)));
}

// The same for one mask of any layer, found by 20 steps down from 1 and halving from there.
export function breakPoint(model, x, want, limit, l, c) {
  const masks = ones(model);
  const breaks = (m) => {
    masks[l][c] = m;
    return difference(masked(model, x, masks).output, want).max > limit;
  };
  let low = 1;
  while (low >= 0 && !breaks(low)) low = Math.round(20 * low - 1) / 20;
  if (low < 0) return null;
  let high = Math.min(1, low + 0.05);
  for (let k = 0; k < 10; k++) {
    const middle = (low + high) / 2;
    if (breaks(middle)) low = middle;
    else high = middle;
  }
  return low;
}

// Worst allowed masks (g ≤ m ≤ 1): those that move some output furthest. Without a ReLU inside, an
// output is affine in each single mask, and |activation − wanted| is quasi-convex in it, so a corner
// is never beaten; with one, corners are still where we look: masks are only ever g or 1. Two searches:
// - every corner of the subcomponents in `free`, a list of [layer, c], the others as in `start`;
// - ascent: for one output and one direction, the masks of one layer given the others are read off
//   the signs of the slopes (the best there are, where affine) and kept if they help; repeat over
//   layers until nothing moves.
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
      let masks = start;
      let now = masked(model, x, masks);
      for (let moved = true, round = 0; moved && round < 20; round++) {
        moved = false;
        for (let l = 0; l < masks.length; l++) {
          const slope = slopes(model, now, masks, o, l)[l];
          const trial = masks.with(l, masks[l].map((_, c) => (sign * slope[c] > 0 ? 1 : ideal.g[l][c])));
          const then = masked(model, x, trial);
          if (sign * (then.z[o] - now.z[o]) <= 1e-12) continue;
          [masks, now, moved] = [trial, then, true];
        }
      }
      const { max } = difference(now.output, ideal.output);
      reached.push([max, o]);
      if (max > best.max) best = { max, masks };
    }
  return { ...best, reached };
}

// The outputs that allowed masks would move most if they were affine in all of them.
function steepest(model, x, ideal, count) {
  const all = ones(model);
  const now = masked(model, x, all);
  const moves = Array.from(ideal.output, (_, o) => {
    const sums = [0, 0]; // down, up
    slopes(model, now, all, o, 0).forEach((layer, l) => layer.forEach((v, c) => (sums[Number(v < 0)] += Math.abs(v) * (1 - ideal.g[l][c]))));
    return [Math.max(...sums), o];
  });
  return moves.sort((a, b) => b[0] - a[0]).slice(0, count).map(([, o]) => o);
}

// An adversary that switches masks to their floor one by one, all others on: for one output and one
// direction, each time the mask that pushes furthest (the slopes are exact where an output is affine
// in each single mask), until none pushes. Rung k is the worst of all these with at most k switched.
export function flips(model, x, ideal) {
  const rungs = [];
  for (const o of steepest(model, x, ideal, 6))
    for (const sign of [1, -1]) {
      let masks = ones(model);
      for (let k = 0; ; k++) {
        const now = masked(model, x, masks);
        const { max } = difference(now.output, ideal.output);
        if (!(rungs[k]?.max >= max)) rungs[k] = { max, masks };
        const gains = slopes(model, now, masks, o, 0).flatMap((layer, l) =>
          Array.from(layer, (slope, c) => [sign * slope * (ideal.g[l][c] - masks[l][c]), l, c]));
        const [gain, l, c] = gains.reduce((a, b) => (b[0] > a[0] ? b : a));
        if (gain <= 1e-12) break;
        masks = masks.with(l, masks[l].with(c, ideal.g[l][c]));
      }
    }
  return rungs.reduce((all, rung) => [...all, all.length && all.at(-1).max >= rung.max ? all.at(-1) : rung], []);
}

// Up to 14 free subcomponents (those in `candidates` with g < 1): all corners, then ascent over the
// rest from the best one. More: ascent also from random corners, for the outputs that moved most.
// `exact` says that nothing was left out and that corners are enough.
export function worst(model, x, ideal, candidates, random, starts = 4) {
  const free = candidates.filter(([l, c]) => ideal.g[l][c] < 1);
  const rest = ideal.g.reduce((n, g) => n + g.filter((v) => v < 1).length, 0) - free.length;
  const all = ones(model);
  let best = ascend(model, x, ideal, all, model.affine ? steepest(model, x, ideal, 6) : null);
  const promising = new Set(best.reached.sort((a, b) => b[0] - a[0]).slice(0, 4).map(([, o]) => o));
  const consider = (found) => (best = found.max > best.max ? found : best);
  if (free.length <= 14) consider(ascend(model, x, ideal, corners(model, x, ideal, free, all).masks));
  else
    for (let k = 0; k < starts; k++)
      consider(ascend(model, x, ideal, all.map((m, l) => m.map((_, c) => (random() < 0.5 ? ideal.g[l][c] : 1))), promising));
  return { ...best, exact: free.length <= 14 && rest === 0 && model.affine === 0 };
}
