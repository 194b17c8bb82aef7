"""The layer for JAX: ``from cvxfold.jax import CvxpyLayer`` in place of cvxpylayers'."""

from cvxfold.jax.cvxpylayer import CvxpyLayer

__all__ = ["CvxpyLayer"]
