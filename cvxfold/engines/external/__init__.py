"""Any conic solver as the forward pass, called for each instance, in parallel."""

from cvxfold.engines.external.batch import ExternalSolver, available, named
from cvxfold.engines.external.rescuer import rescued, why_no_rescue

__all__ = ["ExternalSolver", "available", "named", "rescued", "why_no_rescue"]
