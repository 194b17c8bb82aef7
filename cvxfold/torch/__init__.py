"""The drop-in layer: ``from cvxfold.torch import CvxpyLayer`` in place of cvxpylayers'."""

from cvxfold.layer.base import Source
from cvxfold.torch.cvxpylayer import CvxpyLayer

__all__ = ["CvxpyLayer", "Source"]
