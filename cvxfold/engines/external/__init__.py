"""Any conic solver as the forward pass, called for each instance, in parallel."""

from cvxfold.engines.external.batch import ExternalSolver, available, named

__all__ = ["ExternalSolver", "available", "named"]
