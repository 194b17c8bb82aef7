"""Matrices and factorizations, batched or shared by the batch."""

from cvxfold.linear.cholesky import Cholesky
from cvxfold.linear.matrix import Matrix

__all__ = ["Cholesky", "Matrix"]
