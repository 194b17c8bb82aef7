"""Those who are measured: cvxfold, and cvxpylayers with its solvers; others are beside this file."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

from cvxfold.studies.bench.dense_peers import Qpax, Qpth
from cvxfold.studies.bench.families.family import Evaluate, Family, Stated
from cvxfold.studies.bench.projection_peers import Pinet
from cvxfold.torch import CvxpyLayer


class Peer(Protocol):
    """One who can be measured."""

    @property
    def name(self) -> str:
        """On the command line and in tables."""
        ...

    @property
    def missing(self) -> str | None:
        """Why it cannot be had here, in words; None where it can."""
        ...

    @property
    def warm(self) -> bool:
        """Whether its layers take ``warm_start=True``."""
        ...

    @property
    def by_sample(self) -> bool:
        """Whether its layers take ``samples`` too."""
        ...

    @property
    def on_device(self) -> bool:
        """Whether its layers take values on a GPU and work there; others are given them on the CPU."""
        ...

    def suits(self, family: Family) -> bool:
        """Whether it can solve problems of this family at all."""
        ...

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up a layer for a fresh problem of the family, on so many threads (None: its own choice)."""
        ...


@dataclass(frozen=True)
class Cvxfold:
    """This package, at its defaults."""

    name: str = "cvxfold"
    missing: str | None = None
    warm: bool = True
    by_sample: bool = True
    on_device: bool = True

    def suits(self, family: Family) -> bool:
        """All of them."""
        return True

    def layer(self, family: Family, stated: Stated, threads: int | None) -> CvxpyLayer:
        """Set up the layer."""
        return CvxpyLayer(stated.problem, stated.parameters, stated.variables, gp=stated.gp)


@dataclass(frozen=True)
class Diffcp:
    """cvxpylayers with its default solver: SCS or another, and diffcp for the gradient.

    Args:
        arguments: its ``solver_args``.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    missing: str | None = None
    warm: bool = False
    by_sample: bool = False
    on_device: bool = False

    def suits(self, family: Family) -> bool:
        """All of them."""
        return True

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer."""
        jobs = {} if threads is None else {"n_jobs_forward": threads, "n_jobs_backward": threads}
        return UpstreamLayer(
            stated.problem,
            stated.parameters,
            stated.variables,
            gp=stated.gp,
            solver_args={**jobs, **self.arguments},
        )


@dataclass(frozen=True)
class Moreau:
    """cvxpylayers with Moreau, a compiled batched solver with derivatives of its own.

    cvxpy 1.9.3 hands Moreau constraints such as ``x >= 0`` as cones on x itself, which cvxpylayers 1.2.0 does
    not pass on: they are lost without a word. Unless ``as_it_comes``, cvxpy is kept from doing so while the
    layer is made, which is what makes its answers right.

    Args:
        arguments: its ``solver_args``. as_it_comes: without that remedy.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    as_it_comes: bool = False
    warm: bool = True
    by_sample: bool = False

    @property
    def missing(self) -> str | None:
        """Whether it is installed."""
        if importlib.util.find_spec("moreau") is None:
            return "moreau is not installed: pip install 'cvxfold[bench]'"
        return None

    @property
    def on_device(self) -> bool:
        """Whether its build for CUDA is installed: pip install 'moreau[cuda13]'."""
        return importlib.util.find_spec("moreau_cuda") is not None

    def suits(self, family: Family) -> bool:
        """All of them."""
        return True

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer."""
        arguments = dict(self.arguments)
        problem, parameters, variables = stated.problem, stated.parameters, stated.variables
        if self.as_it_comes:
            return _with_moreau(problem, parameters, variables, gp=stated.gp, solver_args=arguments)
        with _no_direct_cones():
            return _with_moreau(problem, parameters, variables, gp=stated.gp, solver_args=arguments)


@contextmanager
def _no_direct_cones() -> Iterator[None]:
    """Keep cvxpy from taking constraints out of A for Moreau."""
    from cvxpy.reductions.solvers.conic_solvers.moreau_conif import MOREAU

    solver: Any = MOREAU
    kinds = getattr(solver, "DIR_CONE_KINDS", None)
    if kinds is None:  # a cvxpy that knows no such cones
        yield
        return
    solver.DIR_CONE_KINDS = frozenset()
    try:
        yield
    finally:
        solver.DIR_CONE_KINDS = kinds


def _with_moreau(*arguments: Any, **options: Any) -> UpstreamLayer:
    return UpstreamLayer(*arguments, solver="MOREAU", **options)


_TIGHT: dict[str, Any] = {
    "ipm_settings": {
        **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11),
        "diff_method": "exact",  # its default smooths the gradient where there are kinks nearby
    },
    "active_set_settings": {"primal_tol": 1e-10},
}

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Cvxfold(),
        Diffcp("cvxpylayers"),
        Diffcp("cvxpylayers-tight", {"eps": 1e-10}),
        Diffcp("cvxpylayers-dense", {"eps": 1e-10, "mode": "dense"}),
        Moreau("moreau"),
        Moreau("moreau-tight", _TIGHT),
        Moreau("moreau-ipm", _TIGHT | {"solver": "ipm"}),
        Moreau("moreau-as-it-comes", as_it_comes=True),
        Qpth(),
        Qpax(),
        Pinet(),
    )
}
"""All by name."""

USUAL = tuple(name for name in PEERS if name != "moreau-as-it-comes")
"""Those measured unless others are named."""

OURS, THEIRS = "cvxfold", "cvxpylayers"
"""The one that others are compared with, and the default of the package whose place it takes."""


def peers(names: Sequence[str] | None) -> list[Peer]:
    """Those of these names; the usual ones where there are none. cvxfold is always among them, first.

    Raises:
        ValueError: there is no such peer; the message lists those there are.
    """
    for name in names or ():
        if name not in PEERS:
            raise ValueError(f"expected one of {', '.join(PEERS)}, got {name!r}")
    asked = [name for name in names or USUAL if name != OURS]
    return [PEERS[OURS], *(PEERS[name] for name in dict.fromkeys(asked))]
