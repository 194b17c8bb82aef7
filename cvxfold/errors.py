"""What cvxfold raises and warns of."""

import diffcp
import torch


class ConvergenceWarning(UserWarning):
    """A solution or a gradient missed its tolerance; the message names the instances and the remedy."""


class FlatGradientWarning(UserWarning):
    """All gradients of a batch are zero to rounding while the loss looks at the solutions."""


class ConvergenceError(RuntimeError):
    """The same, where the user asked for an error (``on_unconverged="raise"``)."""


class DegenerateError(ConvergenceError):
    """A gradient has no unique value, where the user asked for an error (``on_degenerate="raise"``)."""


class FixedPointError(ConvergenceError):
    """What a solver returned is no fixed point of the update that is to be folded at it."""


class OutOfMemoryError(torch.OutOfMemoryError):
    """Not even one instance of a batch fits into memory; the message says what it needs."""


class SolverError(diffcp.SolverError):
    """An instance has no solution. Also a ``diffcp.SolverError``, which cvxpylayers raises.

    Args:
        message: what happened.
        indices: the instances concerned.
    """

    def __init__(self, message: str, indices: list[int]) -> None:
        super().__init__(message)
        self.indices = indices


class InfeasibleError(SolverError):
    """Instances that have no feasible point."""


class UnboundedError(SolverError):
    """Instances whose objective has no lower bound."""


class ParameterTypeError(TypeError, AttributeError):
    """A parameter that is no floating-point tensor.

    Also an ``AttributeError``, which cvxpylayers raises for arguments that are no tensors.
    """
