"""Problems in a file of its own, as the command line is asked about them."""

TARGETS = """
import cvxpy as cp
import numpy as np

def portfolio():
    w, mu = cp.Variable(5, name="w"), cp.Parameter(5, name="mu")
    problem = cp.Problem(cp.Maximize(mu @ w - cp.sum_squares(w)), [w >= 0, cp.sum(w) == 1])
    return problem, [mu], [w], lambda batch, seed: [np.random.default_rng(seed).standard_normal((batch, 5))]

def declared():
    mu = cp.Parameter(5, nonneg=True)
    w = cp.Variable(5)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w - mu)))
    return problem, [mu], [w], lambda batch, seed: [-np.ones((batch, 5))]

def infeasible():
    x, a = cp.Variable(2), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == a, x >= 0])
    return problem, [a], [x], lambda batch, seed: [-np.ones(batch)]

def kink():
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0])
    return problem, [c], [x], lambda batch: [np.zeros((batch, 2))]

def failing():
    raise RuntimeError('on purpose')
"""
