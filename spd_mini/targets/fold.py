"""Exact shortcut for residual models: no example is ever multiplied out to d_resid.

Whatever stands in the residual stream is a sum of writes, directions times coefficients: the
embedding W_Eᵀ times x, W_out times a layer's activations, or U_out times masked inner activations.
Whatever reads the stream is a matrix. So reading is Σ (reader · directions) · coefficients, where
the products reader · directions are small, do not depend on the examples, and are taken once a
step (once a run where neither side is trained).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Stream = list[tuple[str, Tensor]]
"""Writes into the residual stream: (name of the directions, coefficients ([R,] k, N))."""


class Fold:
    """The shortcut of one frozen residual MLP; calling it gives the passes of one batch.

    W_E: (n, d_resid). pairs: names of (W_in, W_out) by layer. weight: {name: (d_out, d_in)}.
    """

    def __init__(
        self, W_E: Tensor, pairs: Sequence[tuple[str, str]], weight: Mapping[str, Tensor]
    ) -> None:
        self.pairs = pairs
        self.names = list(weight)
        self.readers = {"W_U": W_E} | {w_in: weight[w_in] for w_in, _ in pairs}
        self.writers = {"W_E": W_E.mT} | {w_out: weight[w_out] for _, w_out in pairs}
        self.products = {
            (r, w): (reader @ writer).detach()
            for r, reader in self.readers.items()
            for w, writer in self.writers.items()
        }

    def __call__(
        self, x: Tensor, U: Mapping[str, Tensor], V: Mapping[str, Tensor]
    ) -> "FoldedPasses":
        return FoldedPasses(self, x, U, V)


class FoldedPasses:
    """The forward passes of one step, as `model.Passes`, equal to them up to rounding."""

    def __init__(
        self, fold: Fold, x: Tensor, U: Mapping[str, Tensor], V: Mapping[str, Tensor]
    ) -> None:
        self.fold, self.U, self.V = fold, U, V
        self.products = dict(fold.products)
        self.h: dict[str, Tensor] = {}
        stream: Stream = [("W_E", x.mT)]
        for w_in, w_out in fold.pairs:
            act = torch.relu(self.read(w_in, stream))
            self.h |= {w_in: self.read(f"V {w_in}", stream), w_out: V[w_out] @ act}
            stream = [*stream, (w_out, act)]
        self.stream = stream
        self.target_out = self.read("W_U", stream).mT

    def read(self, reader: str, stream: Stream) -> Tensor:
        """What a reader (.., k, d_resid) takes from the stream: ([R,] k, N)."""
        terms = [self.product(reader, writer) @ c for writer, c in stream]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def product(self, reader: str, writer: str) -> Tensor:
        """reader · directions, taken once; "V name" and "U name" are the trained ones."""
        key = (reader, writer)
        if key not in self.products:
            r = self.V[reader[2:]] if reader.startswith("V ") else self.fold.readers[reader]
            w = self.U[writer[2:]] if writer.startswith("U ") else self.fold.writers[writer]
            self.products[key] = r @ w
        return self.products[key]

    def joint(self, m: Mapping[str, Tensor], mh: Mapping[str, Tensor]) -> Tensor:
        """Output with all layers masked: (R, B, n)."""
        stream = self.stream[:1]
        for i, (w_in, w_out) in enumerate(self.fold.pairs):
            masked = mh[w_in] if i == 0 else m[w_in] * self.read(f"V {w_in}", stream)
            act = torch.relu(self.U[w_in] @ masked)
            stream = [*stream, (f"U {w_out}", m[w_out] * (self.V[w_out] @ act))]
        return self.read("W_U", stream).mT

    def alone(self, m: Mapping[str, Tensor], mh: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs with one matrix masked at a time, in the order of the decomposed modules."""
        outs = {}
        for i, (w_in, w_out) in enumerate(self.fold.pairs):
            for name in (w_in, w_out):
                if name == w_in:
                    write = (w_out, torch.relu(self.U[w_in] @ mh[w_in]))
                else:
                    write = (f"U {w_out}", mh[w_out])
                stream = [*self.stream[: i + 1], write]
                for later_in, later_out in self.fold.pairs[i + 1 :]:
                    stream.append((later_out, torch.relu(self.read(later_in, stream))))
                outs[name] = self.read("W_U", stream).mT
        return [outs[n] for n in self.fold.names]
