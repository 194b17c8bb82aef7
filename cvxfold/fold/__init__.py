"""Folding: linear methods for the backward pass of any fixed-point iteration."""

from cvxfold.fold.adjoint import AdjointMethod, AdjointSettings, AdjointSolution, solve_adjoint
from cvxfold.fold.anderson import Anderson
from cvxfold.fold.bicgstab import BiCGSTAB
from cvxfold.fold.direct import Direct
from cvxfold.fold.gmres import GMRES
from cvxfold.fold.jacobian_free import JacobianFree
from cvxfold.fold.least_squares import LeastSquares
from cvxfold.fold.lfpi import LFPI
from cvxfold.fold.linearization import Linearization
from cvxfold.fold.methods import METHODS, Auto
from cvxfold.fold.unrolled import Unrolled

__all__ = [
    "GMRES",
    "LFPI",
    "METHODS",
    "AdjointMethod",
    "AdjointSettings",
    "AdjointSolution",
    "Anderson",
    "Auto",
    "BiCGSTAB",
    "Direct",
    "JacobianFree",
    "LeastSquares",
    "Linearization",
    "Unrolled",
    "solve_adjoint",
]
