"""Any conic solver as the forward pass, called for each instance, in parallel."""

from cvxfold.engines.external.batch import BlackBox, available, named

__all__ = ["BlackBox", "available", "named"]
