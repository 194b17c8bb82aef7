"""The demo: decision-focused learning on real stock prices, with cvxpylayers and with cvxfold."""
