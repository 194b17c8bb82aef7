"""One call of a layer: options, request, answer, report, and automatic differentiation around it."""
