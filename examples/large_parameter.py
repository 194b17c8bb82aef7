"""A parameter with millions of entries: the projection of b onto {x : A x ≤ 1}, by cvxfold and cvxpylayers.

cvxfold gathers the entries of A where the cone program has them. Making cvxpylayers' layer takes an array of
about n³ indices: its process, which is given so many GiB, ends in a ``MemoryError`` where they are not there.
Run with

    python examples/large_parameter.py --size 2000

Solution and gradient are checked by the closed form on the active rows.
"""

import argparse
import subprocess
import sys
import time

import cvxpy as cp
import numpy as np
import torch
from numpy.typing import NDArray


def problem_of(n: int) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """Minimize ‖x − b‖² subject to A x ≤ 1, with parameters A ``(n, n)`` and b ``(n,)``."""
    x, A, b = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [A @ x <= 1]), [A, b], x


def values_of(n: int) -> list[torch.Tensor]:
    """A ``(n, n)`` and b ``(n,)``, whose gradients are wanted."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(n, n, dtype=torch.float64, generator=generator) / n**0.5
    b = torch.randn(n, dtype=torch.float64, generator=generator)
    return [A.requires_grad_(), b.requires_grad_()]


Floats = NDArray[np.float64]


def gradients(rows: Floats, target: Floats, point: Floats) -> tuple[Floats, Floats, Floats]:
    """The solution x ``(n,)`` and the gradients of ½‖x‖² in A ``(n, n)`` and b ``(n,)``.

    With N the rows that are active at a point, x = b − Nᵀλ where N Nᵀλ = N b − 1. For x̄ = x let N Nᵀμ = N x̄
    and p = x̄ − Nᵀμ: the gradients are b̄ = p and, in the active rows, Ā = −λ pᵀ − μ xᵀ.
    """
    active = rows @ point > 1 - 1e-7
    N = rows[active]
    price = np.linalg.solve(N @ N.T, N @ target - 1)
    x = target - N.T @ price
    mu = np.linalg.solve(N @ N.T, N @ x)
    p = x - N.T @ mu
    assert price.min(initial=np.inf) > 0, "an active row has a multiplier of the wrong sign"
    assert (rows @ x).max() < 1 + 1e-7, "a row is violated"
    of_A = np.zeros_like(rows)
    of_A[active] = -np.outer(price, p) - np.outer(mu, x)
    return x, of_A, p


def errors(A: torch.Tensor, b: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """The largest errors of a solution and of the gradients that ``backward`` has left in A and b."""
    assert A.grad is not None
    assert b.grad is not None
    x, of_A, of_b = gradients(*(tensor.detach().numpy() for tensor in (A, b, found)))
    of_gradients = max(np.abs(A.grad.numpy() - of_A).max(), np.abs(b.grad.numpy() - of_b).max())
    return float(np.abs(found.detach().numpy() - x).max()), float(of_gradients)


def run(who: str, n: int) -> str:
    """Make a layer, call it, differentiate: seconds, memory and errors in words."""
    if who == "cvxfold":
        from cvxfold.torch import CvxpyLayer
    else:
        from cvxpylayers.torch.cvxpylayer import CvxpyLayer
    problem, parameters, x = problem_of(n)
    A, b = values_of(n)
    times = [time.perf_counter()]
    layer = CvxpyLayer(problem, parameters=parameters, variables=[x])
    times.append(time.perf_counter())
    (found,) = layer(A, b)
    times.append(time.perf_counter())
    (0.5 * found.square().sum()).backward()
    times.append(time.perf_counter())
    made, forward, backward = np.diff(times)
    solution, gradient = errors(A, b, found)
    return (
        f"{who}: made in {made:.2f} s, forward {forward:.2f} s, backward {backward:.2f} s{memory()}; "
        f"errors {solution:.0e} of x, {gradient:.0e} of the gradient"
    )


def memory() -> str:
    """The process's largest memory so far, in words; nothing where it cannot be told."""
    try:
        import resource
    except ImportError:
        return ""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f", {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"


def limited(gib: float) -> None:
    """Let this process have so much address space, where the system can limit it."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), int(gib * 2**30)))


def main() -> None:
    """Each in a process of its own, so that neither has the other's memory."""
    parser = argparse.ArgumentParser(description="A parameter with millions of entries.")
    parser.add_argument("--size", type=int, default=2000, help="n; A has n² entries")
    parser.add_argument("--limit", type=float, default=16, help="GiB of address space for each")
    parser.add_argument("--only", choices=["cvxfold", "cvxpylayers"], help="in this process")
    given = parser.parse_args()
    if given.only is not None:
        limited(given.limit)
        try:
            print(run(given.only, given.size), flush=True)
        except MemoryError as error:
            print(f"{given.only}: MemoryError: {error}", flush=True)
        return
    print(f"A has {given.size**2:,} entries", flush=True)
    for who in ("cvxfold", "cvxpylayers"):
        options = ["--size", str(given.size), "--limit", str(given.limit), "--only", who]
        subprocess.run([sys.executable, "-W", "ignore", __file__, *options], check=True)


if __name__ == "__main__":
    main()
