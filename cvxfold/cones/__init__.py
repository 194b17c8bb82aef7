"""Cones: projections and their derivatives, one cone a file."""

from cvxfold.cones.base import Cone, Derivative, SpectralFunction
from cvxfold.cones.dims import ConeDims
from cvxfold.cones.exponential import Exponential
from cvxfold.cones.orthant import Nonnegative, Zero
from cvxfold.cones.power import Power
from cvxfold.cones.product import ProductCone, ProductDerivative, largest_of_block
from cvxfold.cones.second_order import SecondOrder
from cvxfold.cones.semidefinite import Semidefinite

__all__ = [
    "Cone",
    "ConeDims",
    "Derivative",
    "Exponential",
    "Nonnegative",
    "Power",
    "ProductCone",
    "ProductDerivative",
    "SecondOrder",
    "Semidefinite",
    "SpectralFunction",
    "Zero",
    "largest_of_block",
]
