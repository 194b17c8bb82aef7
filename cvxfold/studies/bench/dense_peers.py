"""Peers for dense quadratic programs in matrices: batched interior-point methods, on any device."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from cvxfold.studies.bench.families.family import Evaluate, Family, QuadraticProgram, Stated
from cvxfold.studies.bench.jax_functions import by_jax, has_gpu, jax_package

_Solve = Callable[[QuadraticProgram], Tensor]


@dataclass(frozen=True)
class Qpth:
    """qpth (OptNet): a batched interior-point method for dense quadratic programs in matrices."""

    name: str = "qpth"
    warm: bool = False
    by_sample: bool = False
    on_device: bool = True

    @property
    def missing(self) -> str | None:
        """Whether it is installed."""
        if importlib.util.find_spec("qpth") is None:
            return "qpth is not installed: pip install --no-deps qpth"
        return None

    def suits(self, family: Family) -> bool:
        """Those that come as matrices."""
        return family.matrices is not None

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer; the matrices are made from the parameters in each call."""
        module: Any = importlib.import_module("qpth.qp")

        def solve(qp: QuadraticProgram) -> Tensor:
            function = module.QPFunction(verbose=-1, check_Q_spd=False)
            return function(qp.Q, qp.p, qp.G, qp.h, qp.A, qp.b)

        return _in_matrices(family, stated, solve)


@dataclass(frozen=True)
class Qpax:
    """qpax: an interior-point method in JAX, compiled and vectorized over the batch, in float64.

    Its gradient is that of the program with complementarity relaxed to ``kappa``, whose default (1e-3)
    would make all gradients wrong. At version 0.1.4 the gradient in G is wrong whatever that is.
    """

    name: str = "qpax"
    warm: bool = False
    by_sample: bool = False
    kappa: float = 1e-11

    @property
    def missing(self) -> str | None:
        """Whether it and JAX are installed."""
        if importlib.util.find_spec("qpax") is None or importlib.util.find_spec("jax") is None:
            return "qpax is not installed: pip install qpax"
        return None

    @property
    def on_device(self) -> bool:
        """Whether JAX has a GPU here."""
        return self.missing is None and has_gpu()

    def suits(self, family: Family) -> bool:
        """Those that come as matrices."""
        return family.matrices is not None

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer, which is compiled when it first sees a batch of a size."""
        forward, backward = _compiled_qpax(self.kappa)

        def solve(qp: QuadraticProgram) -> Tensor:
            return by_jax(forward, backward, *_whole(qp))

        return _in_matrices(family, stated, solve)


@cache
def _compiled_qpax(kappa: float) -> tuple[Any, Any]:
    """Solutions (B, n) of Q, p, A, b, G and h, and gradients of all from loss gradients and those."""
    jax = jax_package()
    qpax: Any = importlib.import_module("qpax")

    def one(Q: Any, p: Any, A: Any, b: Any, G: Any, h: Any) -> Any:
        return qpax.solve_qp_primal(Q, p, A, b, G, h, solver_tol=1e-10, target_kappa=kappa)

    def backward(loss: Any, *arguments: Any) -> Any:
        return jax.vjp(jax.vmap(one), *arguments)[1](loss)

    return jax.jit(jax.vmap(one)), jax.jit(backward)


def _whole(qp: QuadraticProgram) -> list[Tensor]:
    """Q, p, A, b, G and h, each with the batch in front; no equalities are none in n variables."""
    batch, n = max(len(one) for one in (qp.Q, qp.p) if one.ndim > 1), qp.p.shape[-1]
    A, b = (qp.A, qp.b) if qp.A.numel() else (qp.p.new_zeros(0, n), qp.p.new_zeros(0))
    parts = ((qp.Q, 2), (qp.p, 1), (A, 2), (b, 1), (qp.G, 2), (qp.h, 1))
    return [part if part.ndim > own else part.expand(batch, *part.shape) for part, own in parts]


def _in_matrices(family: Family, stated: Stated, solve: _Solve) -> Evaluate:
    """From the parameters to the matrices, in each call, to the first variable."""
    matrices = family.matrices
    assert matrices is not None
    shape = stated.variables[0].shape

    def evaluate(*params: Tensor) -> list[Tensor]:
        return [solve(matrices(*params)).reshape(-1, *shape)]

    return evaluate
