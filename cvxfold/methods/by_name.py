"""The methods by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cvxfold.methods.adjoint import AdjointMethod, AdjointSettings, Attempt
from cvxfold.methods.anderson import Anderson
from cvxfold.methods.bicgstab import BiCGSTAB
from cvxfold.methods.direct import Direct
from cvxfold.methods.gmres import GMRES
from cvxfold.methods.history import compact, relative_norm
from cvxfold.methods.jacobian_free import JacobianFree
from cvxfold.methods.least_squares import LeastSquares
from cvxfold.methods.lfpi import LFPI
from cvxfold.methods.linearization import HasMatrix, Linearization
from cvxfold.methods.pseudo_inverse import PseudoInverse
from cvxfold.methods.unrolled import Unrolled

_KRYLOV_ITERS = 200  # what preconditioned GMRES has not solved by then has no solution
_LARGEST_GROWTH = 1e8  # ‖w‖/‖ū‖ beyond this means that I − Φ is singular to working precision
_AS_GOOD = 1 + 1e-6  # a residual within this factor is the same one, but for rounding


@dataclass(frozen=True)
class Auto:
    """Direct; preconditioned GMRES where refinement is not enough; least squares where neither is sane.

    An adjoint that only a singular system could make so large is no derivative: such an instance gets the
    least-norm least-squares adjoint, whose residual tells that there is none. Where Φ is a small matrix its
    singular values take the place of both.

    Args:
        least_norm: whether to go on to least squares.
    """

    least_norm: bool = True
    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Each method for the instances that the one before left unsolved, each with all iterations."""
        few = replace(settings, max_iters=min(settings.max_iters or _KRYLOV_ITERS, _KRYLOV_ITERS))
        rest = [(GMRES(preconditioned=True), few), (LeastSquares(), settings)]
        if self.least_norm and isinstance(phi, HasMatrix):
            rest = [(PseudoInverse(), settings)]  # which is what both come to
        return _in_turn(phi, rhs, [(Direct(), settings), *rest[: 1 + self.least_norm]])


@dataclass(frozen=True)
class ByProducts:
    """The same where there is no approximate inverse: GMRES; least squares where that is not enough.

    Least squares needs products with Φ as well; where they cannot be had GMRES is all.
    """

    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Each method for the instances that the one before left unsolved, each with all iterations."""
        return _in_turn(phi, rhs, [(GMRES(), settings), (LeastSquares(), settings)])


def _in_turn(
    phi: Linearization, rhs: Tensor, methods: Sequence[tuple[AdjointMethod, AdjointSettings]]
) -> Attempt:
    """Each method for the instances that the ones before left unsolved.

    Of two adjoints that leave as much the smaller one counts: what the other has more of is a null vector.
    The history is that of the method that counted.
    """
    (method, settings), *rest = methods
    first = method.solve(phi, rhs, settings)
    w, history, used, exhausted = first.w, first.history, first.method, first.exhausted
    for method, limits in rest:
        rows = (~(_excess(phi, w, rhs) <= settings.tol)).nonzero().squeeze(-1)
        if not len(rows) or settings.deadline.passed:
            break
        part, part_rhs = phi.take(rows), rhs[rows]
        try:
            attempt = method.solve(part, part_rhs, limits)
        except NotImplementedError:  # of a product with Φ, or of an approximate inverse
            break
        before, after = _excess(part, w[rows], part_rhs), _excess(part, attempt.w, part_rhs)
        smaller = attempt.w.norm(dim=-1) < w[rows].norm(dim=-1)
        counts = ((after < before) | ((after <= _AS_GOOD * before) & smaller)).nonzero().squeeze(-1)
        taken = rows[counts]
        w[taken], exhausted[taken] = attempt.w[counts], attempt.exhausted[counts]
        history = _replaced(history, taken, attempt.history[:, counts])
        used = f"{used}; {attempt.method} for {len(rows)}"
    return Attempt(w, history, used, exhausted)


def _replaced(history: Tensor, rows: Tensor, by: Tensor) -> Tensor:
    """A history ``(K, B)`` with that of ``rows`` replaced by another, ``(k, len(rows))``."""
    found = history.new_full((max(len(history), len(by)), history.shape[1]), torch.nan)
    found[: len(history)] = history
    found.index_fill_(1, rows, torch.nan)
    found[: len(by), rows] = by
    return compact(found)


def _excess(phi: Linearization, w: Tensor, rhs: Tensor) -> Tensor:
    """The relative residual; infinite for an adjoint that only a singular system could make so large."""
    residual = relative_norm(rhs - (w - phi.vjp(w)), rhs)
    sane = w.norm(dim=-1) <= _LARGEST_GROWTH * rhs.norm(dim=-1)
    return torch.where(sane, residual, torch.inf)


METHODS: dict[str, AdjointMethod] = {
    "anderson": Anderson(),
    "auto": Auto(),
    "bicgstab": BiCGSTAB(),
    "direct": Direct(),
    "gmres": GMRES(),
    "jacobian_free": JacobianFree(),
    "least_squares": LeastSquares(),
    "lfpi": LFPI(),
    "preconditioned_anderson": Anderson(preconditioned=True),
    "preconditioned_bicgstab": BiCGSTAB(preconditioned=True),
    "preconditioned_gmres": GMRES(preconditioned=True),
    "preconditioned_lfpi": LFPI(preconditioned=True),
}


def method_named(given: Any) -> AdjointMethod | Unrolled:
    """A method by its name, or as it was made.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, type):
        raise ValueError(f"backward: expected a method, got the class itself; give {given.__name__}()")
    if isinstance(given, Unrolled) or (hasattr(given, "solve") and hasattr(given, "exact")):
        return given
    if given == "unrolled":
        return Unrolled()
    if isinstance(given, str) and given in METHODS:
        return METHODS[given]
    raise ValueError(
        f"backward: expected one of {sorted({*METHODS, 'unrolled'})} or a method of cvxfold.fold, "
        f"got {given!r}"
    )
