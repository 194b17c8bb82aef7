"""The forward pass: presolve, equilibration, the splitting iteration and its finish."""
