"""Who is right: cvxpylayers' implicit differentiation and cvxfold's methods on the same values and loss."""

from cvxfold.studies.comparison.findings import Row
from cvxfold.studies.comparison.result import Comparison
from cvxfold.studies.comparison.run import compare

__all__ = ["Comparison", "Row", "compare"]
