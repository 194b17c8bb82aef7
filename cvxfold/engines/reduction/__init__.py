"""What is done to a cone program before an engine iterates on it: presolve and equilibration."""
