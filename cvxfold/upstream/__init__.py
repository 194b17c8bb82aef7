"""cvxfold as the solver of cvxpylayers' own layers."""
