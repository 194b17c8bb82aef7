"""What cvxpylayers' own layer of a problem has in its attributes, for code that reads them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
from cvxpylayers.torch.cvxpylayer import scipy_csr_to_torch_csr
from cvxpylayers.utils.parse_args import LayersContext, parse_args
from torch import Tensor

BUFFERS = ("P", "q", "A")
"""The names under which cvxpylayers' layers keep their maps, and save them in a ``state_dict``."""


def upstream_context(
    problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[cp.Variable], gp: bool
) -> LayersContext:
    """cvxpylayers' context for its default solver. The problem is left as it was found.

    Raises:
        ValueError: cvxpylayers' default solver does not take the problem.
    """
    own = cp.Problem(problem.objective, problem.constraints)
    context = parse_args(own, list(variables), list(parameters), None, gp=gp)
    return replace(context, problem=problem)


def upstream_buffer(context: LayersContext, name: str) -> Tensor | None:
    """The map from the parameter vector, with a trailing 1, to P, q or [−A | b], sparse (CSR)."""
    if name == "q":
        q: Any = context.q
        return scipy_csr_to_torch_csr(q.tocsr())
    reduced: Any = context.reduced_P if name == "P" else context.reduced_A
    return scipy_csr_to_torch_csr(None if reduced.reduced_mat is None else reduced.reduced_mat.tocsr())
