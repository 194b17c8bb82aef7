"""Cones: projections and their derivatives, one cone a file."""

from cvxfold.cones.base import Cone, Derivative, SpectralFunction
from cvxfold.cones.orthant import Nonnegative, Zero
from cvxfold.cones.product import ConeDims, ProductCone, ProductDerivative
from cvxfold.cones.second_order import SecondOrder

__all__ = [
    "Cone",
    "ConeDims",
    "Derivative",
    "Nonnegative",
    "ProductCone",
    "ProductDerivative",
    "SecondOrder",
    "SpectralFunction",
    "Zero",
]
