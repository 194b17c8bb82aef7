"""The convergence of the backward pass of a layer: seen, predicted, and what to do about it."""

from cvxfold.analysis.result import Analysis, Forecast
from cvxfold.analysis.run import analyze

__all__ = ["Analysis", "Forecast", "analyze"]
