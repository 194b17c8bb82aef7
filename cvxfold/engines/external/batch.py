"""The solvers by name, and a batch of instances solved in parallel."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.external import through_cvxpy
from cvxfold.engines.external.instance import Instance, Outcome, instances
from cvxfold.engines.outcome import CODES, Start, Status
from cvxfold.problem.program import Program

_NATIVE = ("CLARABEL", "SCS")


@dataclass(frozen=True)
class ExternalSolver:
    """A solver: how to call it, and which arguments it takes.

    Args:
        name: as cvxpy writes it.
        solve: for one instance.
        names: its arguments, or None where only the solver itself can tell.
        aliases: other names for them.
        time_limit: the name of its limit on seconds; None if it has none that we know.
    """

    name: str
    solve: Callable[[Instance, dict[str, Any]], Outcome]
    names: frozenset[str] | None
    aliases: Mapping[str, tuple[str, ...]]
    time_limit: str | None = None

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The solver's own arguments for those given.

        Raises:
            ValueError: it takes no argument of such a name.
        """
        own: dict[str, Any] = {}
        for key, value in given.items():
            if self.names is not None and key not in self.names and key not in self.aliases:
                known = sorted({*self.names, *self.aliases})
                raise ValueError(
                    f"solver_args: unknown key {key!r} for solver {self.name}; known are {known}"
                )
            own |= dict.fromkeys(self.aliases.get(key, (key,)), value)
        return own

    def solve_batch(
        self,
        program: Program,
        arguments: dict[str, Any],
        workers: int | None = None,
        deadline: Deadline = NEVER,
    ) -> Start:
        """Solve a batch, each instance on its own, in threads.

        Args:
            program: B of them.
            arguments: of the solver.
            workers: threads; as many as there are processors if None.
            deadline: after which no instance is begun, and which those under way are told of.

        Returns:
            Where it came to, in the units and the rows of the structure, on the values' device. Entries that
            are not finite are zero.
        """
        pool = ThreadPoolExecutor(min(workers or os.cpu_count() or 1, program.batch))
        try:
            problems = instances(program)
            outcomes = list(pool.map(lambda one: self._before(deadline, one, arguments), problems))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C nobody waits for the rest
        return _started(outcomes, program.values.q.device)

    def sparing(self) -> "ExternalSolver":
        """The same, but that an instance at which the solver raises an error is unconverged."""
        return replace(self, solve=partial(_spared, self.solve))

    def _before(self, deadline: Deadline, instance: Instance, arguments: dict[str, Any]) -> Outcome:
        """Solve one instance in the time that is left."""
        left = deadline.left
        if left is None:
            return self.solve(instance, arguments)
        if left == 0:
            return _nowhere(instance)
        if self.time_limit is not None:
            arguments = {**arguments, self.time_limit: min(left, arguments.get(self.time_limit, left))}
        return self.solve(instance, arguments)


def _started(outcomes: Sequence[Outcome], device: torch.device) -> Start:
    """Where the solver came to, brought to a device in one copy."""
    ends = np.array([[CODES.index(outcome.status), outcome.iterations] for outcome in outcomes], dtype=float)
    vectors = [np.stack([getattr(outcome, name) for outcome in outcomes]) for name in ("s", "y", "x")]
    sizes = [vector.shape[1] for vector in (*vectors, ends)]
    together = torch.from_numpy(np.nan_to_num(np.concatenate([*vectors, ends], axis=1)))
    s, y, x, told = together.to(device, torch.float64).split(sizes, dim=1)
    status, iterations = told.long().unbind(1)
    return Start(s, y, x, status, iterations)


def _spared(solve: Callable[[Instance, dict[str, Any]], Outcome], one: Instance, given: Any) -> Outcome:
    try:
        return solve(one, given)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of a compiled solver is no Exception
        return _nowhere(one)


def _nowhere(instance: Instance) -> Outcome:
    x, s, y = (np.zeros(len(v)) for v in (instance.q, instance.b, instance.b))
    return Outcome(x, s, y, Status.UNCONVERGED, 0)


def available() -> list[str]:
    """Names of the solvers that can be had here."""
    through = set(cp.installed_solvers()) & set(_conic_solvers())
    return sorted(through | {name for name in _NATIVE if find_spec(name.lower())} | {"DIFFCP"})


def named(name: Any, method: str | None = None) -> ExternalSolver:
    """The solver of a name, in upper or lower case.

    Args:
        name: one of :func:`available`.
        method: which solver "DIFFCP" calls (its ``solve_method``): SCS unless given.

    Raises:
        ValueError: there is no such solver here.
    """
    wanted = name.upper() if isinstance(name, str) else name
    if wanted not in available():
        raise ValueError(
            f"solver: expected None (cvxfold's own method) or an installed one of {available()}, got {name!r}"
        )
    if wanted == "DIFFCP":  # which hands the problem to one of these
        return named(method or "SCS")
    if wanted == "SCS":
        from cvxfold.engines.external import scs as adapter
    elif wanted == "CLARABEL":
        from cvxfold.engines.external import clarabel as adapter
    else:
        return ExternalSolver(wanted, partial(through_cvxpy.solve, wanted), None, {})
    return ExternalSolver(wanted, adapter.solve, adapter.NAMES, adapter.ALIASES, adapter.TIME_LIMIT)


def _conic_solvers() -> list[str]:
    from cvxpy.reductions.solvers.defines import INSTALLED_CONIC_SOLVERS

    return list(INSTALLED_CONIC_SOLVERS)
