"""How well cvxpylayers solves its adjoint system: what its own derivative computes, seen from inside.

cvxpylayers reports no residual. :class:`Recorder` stands where its solver stands and calls diffcp as
cvxpylayers does, on the same cone program (DIFFCP's form, without P) with the same arguments, but sees all
that diffcp returns: x, y and s, and for loss gradients x̄ and ȳ the gradients q̄ = −p on q and b̄ = v on b.

At the exact solution (p, v) solves the transposed KKT system. With u = s − y and D = DΠ_K(u) that is

    Aᵀv = x̄        (D − I)(ȳ − A p) − D v = 0

In the form of :mod:`cvxfold.gradient.adjoint` with R = I: w = v − A p and Jᵀw = ū, where A M⁻¹ z with M = AᵀA
is the least-norm t with Aᵀt = z,

    ū = (I − 2D) A M⁻¹ x̄ + (D − I) ȳ        Jᵀw = D w + (I − 2D) A M⁻¹ Aᵀ w
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffcp
import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
import torch
from cvxpy.reductions.solvers.conic_solvers.scs_conif import dims_to_solver_dict
from cvxpylayers.interfaces.base import SolverInterface
from torch import Tensor

from cvxfold.cones import ProductCone
from cvxfold.methods.history import relative_norm
from cvxfold.problem.canonical import maps_of


def adjoint_residual(
    A: Sequence[Any], cone: ProductCone, u: Tensor, x_bar: Tensor, y_bar: Tensor, p: Tensor, v: Tensor
) -> Tensor:
    """The larger relative residual of Jᵀw = ū and of Aᵀv = x̄, as cvxfold reports its own.

    Args:
        A: a scipy sparse matrix ``(m, n)`` for each instance.
        cone: K. u: s − y, ``(B, m)``.
        x_bar, y_bar: loss gradients on x ``(B, n)`` and y ``(B, m)``.
        p, v: the gradients −q̄ ``(B, n)`` and b̄ ``(B, m)`` in question.

    Returns:
        ``(B,)``, float64.
    """
    D = cone.derivative(u)
    w = v - _each(A, p, lambda matrix, z: matrix @ z)
    pulled = _each(A, w, lambda matrix, z: matrix.T @ z)
    u_bar = D.apply(lambda d: 1 - 2 * d, _each(A, x_bar, _lifted)) + D.apply(lambda d: d - 1, y_bar)
    applied = D.apply(lambda d: d, w) + D.apply(lambda d: 1 - 2 * d, _each(A, pulled, _lifted))
    stationarity = x_bar - _each(A, v, lambda matrix, z: matrix.T @ z)
    on_y, terms = D.apply(lambda d: d - 1, y_bar), _each(A, w.abs(), lambda matrix, z: abs(matrix).T @ z)
    share = relative_norm(on_y, u_bar).nan_to_num(0.0).clamp_max(1.0)
    sizes = (x_bar.norm(dim=-1), pulled.norm(dim=-1), share * terms.norm(dim=-1))
    largest = torch.stack(sizes).amax(0).unsqueeze(-1)
    return torch.maximum(relative_norm(u_bar - applied, u_bar), relative_norm(stationarity, largest))


def _each(A: Sequence[Any], z: Tensor, product: Any) -> Tensor:
    rows = [product(matrix, row) for matrix, row in zip(A, z.numpy(), strict=True)]
    return torch.from_numpy(np.stack(rows))


def _lifted(matrix: Any, z: np.ndarray) -> np.ndarray:
    """A M⁻¹ z with M = AᵀA: the t of least norm with Aᵀt = z."""
    solution: Any = sl.lstsq(matrix.T.toarray(), z, lapack_driver="gelsy", check_finite=False)
    return solution[0]


@dataclass(frozen=True)
class _Solved:
    """A batch that diffcp solved: its matrices, u = s − y, and its adjoint derivative."""

    A: list[Any]
    u: Tensor
    adjoint: Any


class Recorder(SolverInterface):
    """cvxpylayers' default solver, with ``residual``: of the last backward pass, ``(B,)``.

    Pass it as ``solver=`` to cvxpylayers' layer, and what would be that layer's ``solver_args`` to its calls.
    """

    canon_solver = "DIFFCP"
    supports_quad_obj = False

    def __init__(self) -> None:
        self.residual: Tensor | None = None

    def setup(self, ctx: Any) -> None:
        """Take a layer's structure (its constructor calls this)."""
        rows, pointers, self._shape = ctx.reduced_A.problem_data_index
        self._places = (rows, pointers)
        self._b_rows = rows[pointers[-2] : pointers[-1]]
        self._cone = ProductCone(maps_of(ctx)[0].cones)

    def solve_torch_batch(
        self,
        P: Tensor | None,
        q: Tensor,
        A: Tensor,
        dims: Any,
        solver_args: Mapping[str, Any],
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor, Any]:
        """Solve by diffcp; x ``(B, n)``, y ``(B, m)`` and what the derivative needs."""
        assert P is None  # DIFFCP's form has a linear objective
        entries, costs = (np.ascontiguousarray(each.numpy()) for each in (A, q[:, :-1]))
        stored = [sp.csc_matrix((row, *self._places), shape=self._shape) for row in entries]
        matrices = [-both[:, :-1] for both in stored]
        right = [both[:, -1].toarray().flatten() for both in stored]
        cones = [dims_to_solver_dict(dims)] * len(stored)
        x, y, s, _, adjoint = diffcp.solve_and_derivative_batch(
            matrices, right, list(costs), cones, **solver_args
        )
        x, y, s = (torch.from_numpy(np.stack(each)) for each in (x, y, s))
        return x, y, _Solved(matrices, s - y, adjoint)

    def derivative_torch_batch(
        self, dprimal: Tensor, ddual: Tensor, saved_state: Any
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """diffcp's derivative, measured; gradients on q and [−A | b]."""
        solved: _Solved = saved_state
        x_bar, y_bar = dprimal.double(), ddual.double()
        dA, db, dc = solved.adjoint(list(x_bar.numpy()), list(y_bar.numpy()), list(np.zeros(solved.u.shape)))
        on_q, on_b = (torch.from_numpy(np.stack(each)) for each in (dc, db))
        self.residual = adjoint_residual(solved.A, self._cone, solved.u, x_bar, y_bar, -on_q, on_b)
        on_A = torch.from_numpy(np.stack([-each.data for each in dA]))
        q = torch.cat([on_q, on_q.new_zeros(len(on_q), 1)], 1)
        return None, q, torch.cat([on_A, on_b[:, self._b_rows]], 1)
