"""Any conic solver as the forward pass, called for each instance, in parallel."""

from cvxfold.forward.black_box.solvers import BlackBox, available, named

__all__ = ["BlackBox", "available", "named"]
