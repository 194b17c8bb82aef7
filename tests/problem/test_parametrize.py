"""The maps from parameters to data, against the data that cvxpy computes."""

import cvxpy as cp
import numpy as np
import torch

from cvxfold.problem.canonical import canonicalize
from problems.programs import dense, draw, problem, values_of


def test_data_are_those_of_cvxpy() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    tensors = draw(parameters, 3)
    values = values_of(canonical, tensors)
    for i in range(3):
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter.value = tensor[i].numpy()
        data = cp.Problem(given.objective, given.constraints).get_problem_data(cp.SCS)[0]
        P, q, A, b = dense(canonical, values, i)
        upper = np.triu(data["P"].toarray())
        np.testing.assert_allclose(np.triu(P), upper, atol=1e-14)
        np.testing.assert_allclose(q, data["c"], atol=1e-14)
        np.testing.assert_allclose(A, data["A"].toarray(), atol=1e-14)
        np.testing.assert_allclose(b, data["b"], atol=1e-14)


def test_data_that_no_batched_parameter_reaches_stay_shared() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    gamma, S, c, L = draw(parameters, 5)
    values = values_of(canonical, [gamma[:1], S[:1], c, L[:1]])
    assert [value.shape[0] for value in values] == [1, 5, 1, 5]  # c enters q and b
    full = values_of(canonical, [gamma[:1].expand(5), S[:1].expand(5, -1, -1), c, L[:1].expand(5, -1, -1)])
    for shared, batched in zip(values, full, strict=True):
        torch.testing.assert_close(shared.expand_as(batched), batched, rtol=0, atol=0)


def test_values_of_parameters_are_not_looked_at() -> None:
    """A layer has no use for them, whatever they are; of large parameters a look would take long."""
    seen = []

    class Watched(cp.Parameter):
        @property
        def value(self) -> None:
            seen.append(self)

        @value.setter
        def value(self, val: object) -> None: ...

    x, A, b = cp.Variable(3), Watched((3, 3)), Watched(3)
    for cost in (cp.sum_squares(x - b), cp.norm(x - b)):
        canonicalize(cp.Problem(cp.Minimize(cost), [A @ x <= 1]), [A, b], [x])
    assert not seen
