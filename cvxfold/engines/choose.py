"""Which engine serves a layer, and which solvers can take its place in the forward pass."""

from cvxfold.engines.external import ExternalSolver, available, named
from cvxfold.engines.protocol import Engine, Unroller
from cvxfold.engines.tensors.engine import TensorEngine
from cvxfold.problem.structure import Structure

__all__ = ["ExternalSolver", "available_solvers", "engine_for", "external_solver", "unroller_of"]

external_solver, available_solvers = named, available


def engine_for(structure: Structure) -> Engine:
    """The engine for programs of a structure: today there is one."""
    return TensorEngine(structure)


def unroller_of(engine: Engine, structure: Structure) -> Unroller:
    """An engine whose iterations can be differentiated: this one, or the tensor engine beside it."""
    return engine if isinstance(engine, TensorEngine) else TensorEngine(structure)
