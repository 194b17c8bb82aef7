"""The drop-in layer: ``from cvxfold.torch import CvxpyLayer`` in place of cvxpylayers'."""

from cvxfold.torch.cvxpylayer import CvxpyLayer, Source

__all__ = ["CvxpyLayer", "Source"]
