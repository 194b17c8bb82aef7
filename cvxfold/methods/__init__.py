"""Linear methods for the backward pass of any fixed-point iteration: (I − Φᵀ) w = ū, and unrolling."""

from cvxfold.methods.adjoint import AdjointMethod, AdjointSettings, AdjointSolution, solve_adjoint
from cvxfold.methods.anderson import Anderson
from cvxfold.methods.bicgstab import BiCGSTAB
from cvxfold.methods.by_name import METHODS, Auto
from cvxfold.methods.direct import Direct
from cvxfold.methods.gmres import GMRES
from cvxfold.methods.jacobian_free import JacobianFree
from cvxfold.methods.least_squares import LeastSquares
from cvxfold.methods.lfpi import LFPI
from cvxfold.methods.linearization import Linearization
from cvxfold.methods.unrolled import Unrolled

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
