"""cvxfold: differentiable convex optimization layers by folded optimization.

``cvxfold.torch.CvxpyLayer`` is a drop-in replacement for ``cvxpylayers.torch.CvxpyLayer``.
"""

from cvxfold.errors import (
    ConvergenceError,
    ConvergenceWarning,
    InfeasibleError,
    ParameterTypeError,
    SolverError,
    UnboundedError,
)
from cvxfold.forward.solution import Status

__version__ = "0.1.0"

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "InfeasibleError",
    "ParameterTypeError",
    "SolverError",
    "Status",
    "UnboundedError",
    "__version__",
]
