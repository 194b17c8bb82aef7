"""How far a gradient can be trusted: the adjoint, its diagnosis, its error and the verdict."""
