"""A peer for projections onto polytopes."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cvxfold.studies.bench.families.family import Evaluate, Family, Stated
from cvxfold.studies.bench.jax_functions import by_jax, has_gpu, jax_package


@dataclass(frozen=True)
class Pinet:
    """Pinet: Douglas–Rachford splitting in JAX, vectorized over the batch, in float64.

    Its number of iterations is fixed. Its adjoint is solved to a tolerance that cannot be set, which leaves
    relative errors of about 1e-4.

    Args:
        iterations: of the forward pass. Nearly all of transport's solutions are then right to rounding;
            on a few it is so slow that more would not help.
        backward_iterations: of BiCGSTAB, at most.
    """

    name: str = "pinet"
    warm: bool = False
    by_sample: bool = False
    iterations: int = 5_000
    backward_iterations: int = 200

    @property
    def missing(self) -> str | None:
        """Whether it, JAX and what it needs are installed."""
        if any(importlib.util.find_spec(name) is None for name in ("pinet", "jax", "equinox", "beartype")):
            return "pinet is not installed: pip install pinet-hcnn"
        return None

    @property
    def on_device(self) -> bool:
        """Whether JAX has a GPU here."""
        return self.missing is None and has_gpu()

    def suits(self, family: Family) -> bool:
        """Those that are projections."""
        return family.projection is not None

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Evaluate:
        """Set up the layer, which is compiled when it first sees a batch of a size."""
        assert family.projection is not None
        polytope, shape = family.projection(stated), stated.variables[0].shape
        jax = jax_package()
        pinet: Any = importlib.import_module("pinet")
        A, b = (jax.numpy.asarray(part) for part in (polytope.A, polytope.b))
        lower = jax.numpy.asarray(polytope.lower)[None, :, None]
        bounds = pinet.BoxConstraintSpecification(lb=lower, ub=jax.numpy.full_like(lower, jax.numpy.inf))
        project = pinet.Project(
            eq_constraint=pinet.EqualityConstraint(A[None], b[None, :, None]),
            box_constraint=pinet.BoxConstraint(bounds),
        )

        def forward(point: Any) -> Any:
            given = pinet.ProjectionInstance(x=point[..., None])
            count = {"n_iter": self.iterations, "n_iter_bwd": self.backward_iterations}
            return project.call(y_raw=given, **count)[0].x[..., 0]

        def backward(loss: Any, point: Any) -> Any:
            return jax.vjp(forward, point)[1](loss)

        compiled = jax.jit(forward), jax.jit(backward)

        def evaluate(*params: Tensor) -> list[Tensor]:
            return [by_jax(*compiled, polytope.point(*params)).reshape(-1, *shape)]

        return evaluate
