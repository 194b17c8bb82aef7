"""Restarted GMRES for the adjoint system, every instance with its own Krylov space.

Saad and Schultz, "GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
systems", 1986. One cycle builds an orthonormal basis V of span{r, Sr, S²r, …}, S = (I − Φᵀ) N, with
S Vₖ = Vₖ₊₁ Hₖ, and takes w = N Vₖ argmin ‖βe₁ − Hₖ z‖. N = I, or the approximate inverse.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.checks import require_count
from cvxfold.methods.adjoint import AdjointSettings, Attempt, interval, label
from cvxfold.methods.history import History, compact, relative_norm
from cvxfold.methods.krylov import orthogonalized
from cvxfold.methods.linearization import Linearization

_DEFAULT_ITERS = 2_000
_RESTART = 100
_CHECK_EVERY = 10
_EXHAUSTED = 1e-12  # a new direction smaller than this, relatively, is rounding


@dataclass(frozen=True)
class GMRES:
    """Restarted GMRES.

    Args:
        preconditioned: whether to use the linearization's approximate inverse on the right.
        restart: dimension of a cycle's Krylov space.
    """

    preconditioned: bool = False
    restart: int = _RESTART
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_count("restart", self.restart)

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Cycle until each instance's residual is within the tolerance."""
        out, history = torch.zeros_like(rhs), History(rhs.shape[0])
        index = torch.arange(rhs.shape[0], device=rhs.device)
        w, r, left = torch.zeros_like(rhs), rhs, settings.max_iters or _DEFAULT_ITERS
        while left > 0 and len(index) and not settings.deadline.passed:
            steps = min(self.restart, left, max(rhs.shape[1], 1))
            correction, residuals = self._cycle(phi, r, rhs, steps, settings)
            left -= len(residuals)
            for residual in residuals:
                history.append(residual, index)
            following = w + correction
            image = rhs - (following - phi.vjp(following))
            # Without progress the next cycle would be the same again.
            better = relative_norm(image, rhs) < relative_norm(r, rhs)
            w = torch.where(better.unsqueeze(-1), following, w)
            r = torch.where(better.unsqueeze(-1), image, r)
            out[index] = w
            keep = (better & (relative_norm(r, rhs) > settings.tol)).nonzero().squeeze(-1)
            if len(keep) < len(index):
                index, w, r, rhs, phi = index[keep], w[keep], r[keep], rhs[keep], phi.take(keep)
        return Attempt.ended(out, compact(history.stack(out)), label("gmres", self.preconditioned), index)

    def _cycle(
        self, phi: Linearization, r: Tensor, rhs: Tensor, steps: int, settings: AdjointSettings
    ) -> tuple[Tensor, Tensor]:
        """One cycle from the residual ``r``: the correction of w and the relative residual of each step.

        Steps beyond an instance's tolerance are not used, and NaN.
        """
        (batch, m), tol = r.shape, settings.tol
        every = interval(_CHECK_EVERY, self.preconditioned)
        beta = r.norm(dim=-1, keepdim=True)
        scale = rhs.norm(dim=-1).clamp_min(torch.finfo(r.dtype).tiny)
        basis = r.new_zeros(batch, steps + 1, m)
        basis[:, 0] = r / beta.clamp_min(torch.finfo(r.dtype).tiny)
        H = r.new_zeros(batch, steps + 1, steps)
        for k in range(steps):
            v = basis[:, k]
            v = phi.inverse_transposed(v) if self.preconditioned else v
            v = v - phi.vjp(v)
            before = v.norm(dim=-1)
            v, H[:, : k + 1, k] = orthogonalized(v, basis[:, : k + 1])
            norm = v.norm(dim=-1)
            norm = torch.where(norm > _EXHAUSTED * before, norm, torch.zeros_like(norm))
            H[:, k + 1, k] = norm
            basis[:, k + 1] = torch.where(norm > 0, 1 / norm, 0.0).unsqueeze(-1) * v
            if (k + 1) % every == 0 and k + 1 < steps:
                reached = _Triangle.of(H[:, : k + 2, : k + 1]).residuals(beta)[:, -1]
                if settings.deadline.passed or bool((reached <= tol * scale).all()):
                    steps = k + 1
                    break
        triangle = _Triangle.of(H[:, : steps + 1, :steps])
        residuals = (triangle.residuals(beta) / scale.unsqueeze(-1)).mT
        enough = 1 + (residuals > tol).long().cumprod(0).sum(0)  # the first step that meets the tolerance
        v = (triangle.solve(beta, enough).unsqueeze(-2) @ basis[:, :steps]).squeeze(-2)
        used = torch.arange(steps, device=r.device).unsqueeze(-1) < enough
        residuals = torch.where(used, residuals, torch.nan)
        return (phi.inverse_transposed(v) if self.preconditioned else v), residuals


@dataclass(frozen=True)
class _Triangle:
    """The QR factors of a Hessenberg matrix H ``(B, k+1, k)``, which hold those of all its leading parts.

    Args:
        first: the first row of Q, ``(B, k)``.
        R: ``(B, k, k)``, with infinite pivots where the Krylov space is exhausted.
        sines: of the rotations that would make R from H, ``(B, k)``: h_{j+1,j} / r_jj.
    """

    first: Tensor
    R: Tensor
    sines: Tensor

    @classmethod
    def of(cls, H: Tensor) -> "_Triangle":
        Q, R = torch.linalg.qr(H)
        diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
        flat = diagonal <= _EXHAUSTED * diagonal.amax(-1, keepdim=True)
        below = H.diagonal(offset=-1, dim1=-2, dim2=-1)
        sines = torch.where(flat, 1.0, below / torch.where(flat, 1.0, diagonal))
        return cls(Q[:, 0], R + torch.diag_embed(torch.where(flat, torch.inf, 0.0)), sines)

    def residuals(self, beta: Tensor) -> Tensor:
        """min ‖βe₁ − Hⱼ z‖ for the leading parts H₁, …, Hₖ: products of sines, ``(B, k)``."""
        return beta * self.sines.cumprod(-1)

    def solve(self, beta: Tensor, size: Tensor) -> Tensor:
        """argmin ‖βe₁ − H z‖ over the leading ``size`` ``(B,)`` unknowns, ``(B, k)``.

        A zero pivot leaves its unknown at zero.
        """
        leading = torch.arange(self.R.shape[-1], device=self.R.device) < size.unsqueeze(-1)
        target = (beta * self.first * leading).unsqueeze(-1)
        return torch.linalg.solve_triangular(self.R, target, upper=True).squeeze(-1)
