"""Matrices and factorizations, batched or shared by the batch."""

from cvxfold.engines.tensors.linear.cholesky import Cholesky
from cvxfold.engines.tensors.linear.matrix import Matrix

__all__ = ["Cholesky", "Matrix"]
