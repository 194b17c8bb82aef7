"""The demo: decision-focused learning on real electricity demand, with cvxpylayers and with cvxfold."""
