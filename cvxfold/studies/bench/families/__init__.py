"""Problem families to measure: a problem in plain CVXPY, and a sampler of its parameters."""
