"""Peers for dense quadratic programs in matrices: batched interior-point methods, on any device."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Family, QuadraticProgram, Stated

Evaluate = Callable[..., Sequence[Tensor]]
"""From parameter tensors to output tensors, differentiably; may take ``warm_start`` and ``samples``."""

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
        if self.missing is not None:
            return False
        return _jax().default_backend() == "gpu"

    def suits(self, family: Family) -> bool:
        """Those that come as matrices."""
        return family.matrices is not None

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer, which is compiled when it first sees a batch of a size."""
        forward, backward = _compiled_qpax(self.kappa)

        def solve(qp: QuadraticProgram) -> Tensor:
            return _ByJax.apply(forward, backward, *_whole(qp))  # pyright: ignore[reportReturnType]

        return _in_matrices(family, stated, solve)


class _ByJax(torch.autograd.Function):
    """JAX functions on PyTorch's autograd tape."""

    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, *tensors: Tensor) -> Tensor:
        arguments = [_to_jax(tensor) for tensor in tensors]
        ctx.kept = backward, arguments
        return torch.from_dlpack(forward(*arguments))

    @staticmethod
    def backward(ctx: Any, *loss: Tensor) -> Any:
        backward, arguments = ctx.kept
        found = backward(_to_jax(loss[0]), *arguments)
        return None, None, *(torch.from_dlpack(one) for one in found)


def _jax() -> Any:
    """JAX, kept from taking most of a GPU's memory as it begins."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return importlib.import_module("jax")


def _to_jax(tensor: Tensor) -> Any:
    return _jax().dlpack.from_dlpack(tensor.detach().contiguous())


@cache
def _compiled_qpax(kappa: float) -> tuple[Any, Any]:
    """Solutions (B, n) of Q, p, A, b, G and h, and gradients of all from loss gradients and those."""
    jax = _jax()
    qpax: Any = importlib.import_module("qpax")
    jax.config.update("jax_enable_x64", True)

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
