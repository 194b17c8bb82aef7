"""cvxfold: differentiable convex optimization layers by folded optimization."""

__version__ = "0.1.0"
