"""Causal importance: one small MLP per subcomponent, then a (leaky) hard sigmoid.

g_c(x) = σ_H(γ_c(h_c)) with h_c = V_c · a and γ_c: scalar → d_gate GELU → scalar
(arXiv 2506.20790, section 2.2 and appendix on leaky hard sigmoids).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAK = 0.01
"""Slope of the leaky hard sigmoids outside [0, 1]."""


class Gates(NamedTuple):
    """Weights of the importance MLPs γ_c(h) = w_out_c · gelu(w_in_c h + b_in_c) + b_out_c.

    w_in, b_in, w_out: (..., C, d_gate); b_out: (..., C). The leading dimension, if any, is R.
    """

    w_in: Tensor
    b_in: Tensor
    w_out: Tensor
    b_out: Tensor


def init_gates(C: int, hidden: int, restarts: int, generator: torch.Generator) -> Gates:
    """Random gates: w_in ~ N(0, 2), w_out ~ N(0, 1/d_gate) (variances), biases 0."""
    shape, device = (restarts, C, hidden), generator.device
    w_in = torch.randn(shape, generator=generator, device=device) * math.sqrt(2)
    w_out = torch.randn(shape, generator=generator, device=device) / math.sqrt(hidden)
    zeros = torch.zeros(shape, device=device)
    return Gates(w_in, zeros, w_out, torch.zeros(shape[:-1], device=device))


def gate_logits(h: Tensor, gates: Gates) -> Tensor:
    """γ(h), the readable form. h: (..., C) with gates (C, d_gate). Returns (..., C)."""
    hidden = F.gelu(h[..., None] * gates.w_in + gates.b_in)
    return (hidden * gates.w_out).sum(-1) + gates.b_out


def gate_logits_batched(h: Tensor, gates: Gates) -> Tensor:
    """γ(h) for component-major h (R, C, N) and gates (R, C, d_gate). Returns (R, C, N).

    Equal to `gate_logits` on h.mT. Batched products over components, with the N rows last and
    every operand contiguous: GELU's backward pass is several times slower on a transposed layout.
    """
    R, C, N = h.shape
    w_in, b_in, w_out = (w.reshape(R * C, -1) for w in gates[:3])
    hidden = F.gelu(torch.bmm(w_in[:, :, None], h.reshape(R * C, 1, N)) + b_in[:, :, None])
    return torch.bmm(w_out[:, None, :], hidden).view(R, C, N) + gates.b_out[..., None]


def hard_sigmoid(gamma: Tensor) -> Tensor:
    """σ_H: clamp to [0, 1]. The importance that is reported."""
    return gamma.clamp(0.0, 1.0)


def lower_leaky(gamma: Tensor) -> Tensor:
    """Hard sigmoid with slope 0.01 below 0: builds the masks, so a dead component gets gradient."""
    return F.leaky_relu(gamma, LEAK).clamp(max=1.0)


def upper_leaky(gamma: Tensor) -> Tensor:
    """Hard sigmoid with slope 0.01 above 1: enters the penalty, so saturation keeps gradient."""
    return 1 - lower_leaky(1 - gamma)
