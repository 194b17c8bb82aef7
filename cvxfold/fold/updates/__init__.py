"""Ready updates under their standard names, for ``cvxfold.fold``. docs/fold.md says which to choose."""

from cvxfold.fold.updates.admm import ADMM
from cvxfold.fold.updates.dual_proximal_gradient import DualProximalGradient
from cvxfold.fold.updates.gradient_descent import Accelerated, ProjectedGradient, ProximalGradient
from cvxfold.fold.updates.sqp import SQPStep

__all__ = ["ADMM", "Accelerated", "DualProximalGradient", "ProjectedGradient", "ProximalGradient", "SQPStep"]
