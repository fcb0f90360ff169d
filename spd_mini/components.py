"""Rank-one subcomponents of one weight matrix: U (write directions) and V (read directions).

Shapes. W (d_out, d_in) is written as U @ V = Σ_c U_c V_c with U (d_out, C) and V (C, d_in).
During training everything carries a leading dimension R (independent restarts), and the N rows of
a batch (all its leading dimensions flattened) stand last, `(R, C, N)`: component-major, because the
importance functions work one component at a time and are several times faster on contiguous rows.
"""

import torch
from torch import Tensor


def init_components(
    weight: Tensor, C: int, restarts: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random initialisation of U (R, d_out, C) and V (R, C, d_in) for one weight (d_out, d_in).

    Columns of U and rows of V are random unit vectors; then U_c is scaled by u_cᵀ W v_c, the best
    coefficient for that direction pair (released code of arXiv 2506.20790; no data is looked at).
    """
    d_out, d_in = weight.shape
    U, V = (
        torch.randn(restarts, *shape, generator=generator, device=generator.device).to(weight)
        for shape in ((d_out, C), (C, d_in))
    )
    U = U / U.norm(dim=1, keepdim=True)
    V = V / V.norm(dim=2, keepdim=True)
    return U * torch.einsum("roc,oi,rci->rc", U, weight, V)[:, None, :], V


def inner(a: Tensor, V: Tensor) -> Tensor:
    """Inner activations h_c = V_c · a, component-major.

    a: (N, d_in) shared by all restarts, or (R, N, d_in); V: (R, C, d_in). Returns (R, C, N).
    """
    return torch.bmm(V, a.mT) if a.dim() == 3 else V @ a.mT


def inner_embedding(tokens: Tensor, V: Tensor) -> Tensor:
    """The same for an embedding, where the input is a token index: h_c = V[c, token].

    tokens: (N,) integers; V: (R, C, vocabulary). Returns (R, C, N).
    """
    return V[:, :, tokens]


def write(h: Tensor, U: Tensor, mask: Tensor | None = None) -> Tensor:
    """Masked write-out Σ_c m_c h_c U_c.

    h, mask: (R, C, N); U: (R, d_out, C). Returns (R, N, d_out).

    Applied to h = V a this is W'(x, r) a with W' = U diag(m) V (METHOD: masked weight).
    """
    return torch.bmm((h if mask is None else h * mask).mT, U.mT)
