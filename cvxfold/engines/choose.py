"""Which engine serves a layer, and which solvers can take its place in the forward pass."""

from dataclasses import dataclass

import torch

from cvxfold.engines.cuda import toolkit
from cvxfold.engines.cuda.batch import FEW, KINDS
from cvxfold.engines.external import ExternalSolver, available, named, why_no_rescue
from cvxfold.engines.lanes import library
from cvxfold.engines.lanes.engine import LanesEngine
from cvxfold.engines.lanes.shortcut import LanesShortcut
from cvxfold.engines.protocol import Engine, Shortcut, Unroller
from cvxfold.engines.tensors.engine import TensorEngine
from cvxfold.problem.program import Entries
from cvxfold.problem.structure import Canonical, Structure

__all__ = [
    "CompiledPart",
    "ExternalSolver",
    "available_solvers",
    "compiled",
    "engine_for",
    "external_solver",
    "sizes_on",
    "unroller_of",
    "why_no_cuda_kernels",
    "why_no_rescue",
]

external_solver, available_solvers = named, available

_MANY_ENTRIES, _DENSE = 250_000, 0.2  # stored entries of A, and their share, of data that are dense and large


def engine_for(entries: Entries, wanted: str = "auto") -> Engine:
    """The engine for programs with these entries.

    Args:
        entries: of the programs.
        wanted: "lanes", "tensors", or "auto": lanes where they serve.

    Raises:
        ValueError: lanes are wanted, and cannot serve; the message says why.
    """
    tensors = TensorEngine(entries.structure)
    if wanted == "tensors":
        return tensors
    if (reason := library.why_not()) is not None:
        if wanted == "lanes":
            raise ValueError(f"engine: expected 'tensors' or 'auto', got 'lanes': {reason}")
        return tensors
    if wanted == "auto" and is_obviously_dense(entries.structure):
        return tensors
    lanes = LanesEngine(entries, tensors)
    return tensors if wanted == "auto" and lanes.work.is_for_dense_matrices else lanes


def shortcut_for(engine: Engine, canonical: Canonical) -> Shortcut | None:
    """The engine's way from a layer's parameters to its variables, if it has one."""
    return LanesShortcut(engine, canonical) if isinstance(engine, LanesEngine) else None


def is_obviously_dense(structure: Structure) -> bool:
    """Whether the data are so large and dense that an analysis need not be made to know what it would say."""
    stored, all_of_A = structure.A_entries.shape[1], structure.m * structure.n
    return stored > _MANY_ENTRIES and stored > _DENSE * all_of_A


def unroller_of(engine: Engine, structure: Structure) -> Unroller:
    """An engine whose iterations can be differentiated: this one, or the tensor engine beside it."""
    if isinstance(engine, LanesEngine):
        return engine.beside
    return engine if isinstance(engine, TensorEngine) else TensorEngine(structure)


@dataclass(frozen=True)
class CompiledPart:
    """What there is of the compiled engine on this machine.

    Args:
        instruction_set: of the module that serves on this CPU; None where there is none.
        width: how many instances a pack of it holds; 1 where there is none.
        why_not: one line that says why there is none; None where there is one.
    """

    instruction_set: str | None
    width: int
    why_not: str | None


def why_no_cuda_kernels() -> str | None:
    """Why the kernels cannot be compiled for a CUDA device here; None where they can."""
    return toolkit.why_not()


def compiled() -> CompiledPart:
    """What there is of the compiled engine.

    Raises:
        ValueError: the environment variable ``CVXFOLD_ISA`` asks for what is not there.
    """
    return CompiledPart(library.instruction_set(), library.width(), library.why_not())


def sizes_on(device: torch.device) -> dict[str, tuple[int, int]]:
    """Of the kernels for problems without curved cones on a CUDA device, compiled where none are kept.

    Returns:
        By name, registers of a thread and the bytes that it keeps in memory.
    """
    return toolkit.kernels_for(device, FEW, tuple(kind.upper() for kind in KINDS)).sizes()
