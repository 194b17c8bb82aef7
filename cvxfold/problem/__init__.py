"""Between CVXPY and the stored entries of a cone program, both ways."""
