"""Solve and differentiate millions of instances: rows of parameters in, rows of results out, by Dask.

Power stations share a demand at least cost, ½ aᵢ xᵢ² + cᵢ xᵢ each, within their capacities. A row is one
scenario: the demand and the fuel prices c. Of each the dispatch x is found, and how emissions move with the
demand (the marginal emissions) and the prices. Each of Dask's workers is a process with one thread and one
layer; blocks of rows go to whoever is free. Run with

    python examples/many_instances.py --rows 1000000 --workers 2

(needs ``pip install 'cvxfold[dask]'``). With ``--scheduler tcp://…`` the workers of a running cluster serve.
"""

import argparse
import time
from typing import Any

import cvxpy as cp
import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster, Worker, WorkerPlugin, get_worker
from numpy.typing import NDArray

from cvxfold.torch import CvxpyLayer

CURVATURE = np.array([0.5, 0.8, 1.0, 1.2, 0.6, 2.0])  # a, money an hour and (unit of power)²
CAPACITY = np.array([8.0, 6.0, 6.0, 4.0, 3.0, 10.0])
EMISSIONS = np.array([0.95, 0.9, 0.45, 0.4, 0.0, 0.6])  # tonnes a unit of energy
STATIONS = len(CAPACITY)


def dispatch() -> CvxpyLayer:
    """From the demand and the prices ``(STATIONS,)`` to each station's power ``(STATIONS,)``."""
    x, demand, prices = cp.Variable(STATIONS), cp.Parameter(), cp.Parameter(STATIONS)
    cost = 0.5 * cp.sum(cp.multiply(CURVATURE, cp.square(x))) + prices @ x
    constraints = [x >= 0, x <= CAPACITY, cp.sum(x) == demand]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    return CvxpyLayer(problem, [demand, prices], [x], on_unsolvable="nan", on_unconverged="ignore")


class Solver(WorkerPlugin):
    """What a worker has: one thread, as there are as many workers as cores, and one layer."""

    name = "solver"

    def setup(self, worker: Worker) -> None:
        """Called once in each worker, and in workers that join later."""
        torch.set_num_threads(1)
        worker.layer = dispatch()  # pyright: ignore[reportAttributeAccessIssue]


def solve(layer: CvxpyLayer, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Powers, and the emissions' gradients in demand and prices, ``(B, 2 STATIONS + 1)``.

    Rows that have no solution, or whose gradient is not to be trusted, are NaN.

    Args:
        layer: of :func:`dispatch`. rows: demands and prices, ``(B, 1 + STATIONS)``.
    """
    parameters = torch.from_numpy(rows.copy()).requires_grad_()
    (power,) = layer(parameters[:, 0], parameters[:, 1:])
    emissions = (power * torch.from_numpy(EMISSIONS)).sum()  # a row's depend on that row alone
    (gradients,) = torch.autograd.grad(emissions, parameters)
    found = torch.cat([power.detach(), gradients], dim=1)
    report = layer.report.backward
    assert report is not None
    found[~report.converged] = torch.nan
    return found.numpy()


def solve_block(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, by the layer of the worker that calls it."""
    layer: Any = get_worker().layer  # pyright: ignore[reportAttributeAccessIssue]
    return solve(layer, rows)


def scenarios(count: int, block: int, seed: int = 0) -> da.Array:
    """Parameters ``(count, STATIONS + 1)``, drawn block by block where they are needed."""
    generator: Any = da.random.default_rng(seed)
    demand = generator.uniform(5, 30, (count, 1), chunks=(block, 1))
    prices = generator.uniform(1, 10, (count, STATIONS), chunks=(block, STATIONS))
    return da.concatenate([demand, prices], axis=1).rechunk((block, -1))


def solved(parameters: da.Array) -> da.Array:
    """Results ``(count, 2 STATIONS + 1)``, block by block; nothing is computed yet."""
    chunks = (parameters.chunks[0], (2 * STATIONS + 1,))
    return da.map_blocks(solve_block, parameters, chunks=chunks, meta=np.empty((0, 0)))


def main() -> None:
    """Solve, and print what the marginal emissions are and how many rows were solved in a second."""
    parser = argparse.ArgumentParser(description="Solve and differentiate many instances.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=10_000, help="rows that a worker is given at once")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scheduler", help="of a running cluster, instead of workers of its own")
    given = parser.parse_args()
    cluster = given.scheduler or LocalCluster(
        n_workers=given.workers, threads_per_worker=1, dashboard_address=":0"
    )
    with Client(cluster) as client:
        client.register_plugin(Solver())
        solved(scenarios(given.block * given.workers, given.block)).sum().compute()  # warm
        started = time.perf_counter()
        results = solved(scenarios(given.rows, given.block))
        marginal = results[:, STATIONS]
        lost, mean, spread = da.compute(da.isnan(marginal).sum(), da.nanmean(marginal), da.nanstd(marginal))
        seconds = time.perf_counter() - started
    print(f"marginal emissions {mean:.4f} ± {spread:.4f} tonnes a unit of energy")
    print(f"{given.rows:,} rows, {int(lost):,} without an answer, {given.rows / seconds:,.0f} a second")


if __name__ == "__main__":
    main()
