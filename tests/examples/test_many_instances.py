"""Many instances by Dask's workers: powers and gradients against the dispatch's closed form."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from problems.marks import long

pytest.importorskip("distributed")
pytest.importorskip("dask.array")

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return import_module("many_instances")


def closed_form(example: Any, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Powers and gradients ``(2n + 1,)`` of one scenario, by the price λ at which the demand is met.

    Station i gives (λ − cᵢ)/aᵢ between its bounds. With F those strictly between and S = Σ_F 1/aᵢ, dλ = (Σ_F
    dcᵢ/aᵢ + d demand)/S and dxᵢ = (dλ − dcᵢ)/aᵢ for i in F, 0 elsewhere. NaN where capacities do not suffice.
    """
    demand, prices = row[0], row[1:]
    a, cap, e = example.CURVATURE, example.CAPACITY, example.EMISSIONS
    if demand > cap.sum():
        return np.full(2 * len(a) + 1, np.nan)
    low, high = prices.min(), (prices + a * cap).max()
    for _ in range(100):
        middle = (low + high) / 2
        enough = np.clip((middle - prices) / a, 0, cap).sum() > demand
        low, high = (low, middle) if enough else (middle, high)
    power = np.clip((low - prices) / a, 0, cap)
    free = ((power > 0) & (power < cap)) / a
    marginal = (e * free).sum() / free.sum()
    return np.concatenate([power, [marginal], free * (marginal - e)])


def drawn(count: int) -> NDArray[np.float64]:
    """Demands and prices of scenarios; every seventh asks for more than there is."""
    generator = np.random.default_rng(3)
    rows = generator.uniform(1, 10, (count, 7))
    rows[:, 0] = generator.uniform(5, 30, count)
    rows[::7, 0] = 50
    return rows


def check(example: Any, rows: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    expected = np.stack([closed_form(example, row) for row in rows])
    assert 0 < np.isnan(expected[:, 0]).sum() < len(rows) / 3
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_rows_are_those_of_the_closed_form(example: Any) -> None:
    rows = drawn(60)
    check(example, rows, example.solve(example.dispatch(), rows))


@long
def test_workers_solve_blocks_with_one_thread_and_one_layer_each(example: Any) -> None:
    from distributed import LocalCluster, Worker

    rows, da = drawn(70), import_module("dask.array")

    def described(dask_worker: Worker) -> tuple[int, int]:
        return id(dask_worker.layer), torch.get_num_threads()  # pyright: ignore[reportAttributeAccessIssue]

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        import_module("distributed").Client(cluster) as client,
    ):
        client.register_plugin(example.Solver())
        before = client.run(described)
        assert len(before) == 2
        check(example, rows, example.solved(da.from_array(rows, chunks=(20, -1))).compute())
        assert client.run(described) == before
        assert {threads for _, threads in before.values()} == {1}
