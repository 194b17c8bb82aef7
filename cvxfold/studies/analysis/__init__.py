"""The convergence of the backward pass of a layer: seen, predicted, and what to do about it."""

from cvxfold.studies.analysis.result import Analysis, Forecast
from cvxfold.studies.analysis.run import analyze

__all__ = ["Analysis", "Forecast", "analyze"]
