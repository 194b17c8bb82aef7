"""Warm starts: the same answers from wherever a call begins, in fewer steps; what is remembered of it."""

import copy
import pickle
import threading
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold import InfeasibleError
from cvxfold.layer.samples import WarmStart
from cvxfold.torch import CvxpyLayer
from problems.layers import family_of, layer_of
from problems.marks import ENGINES, needs_lanes

SAMPLES = 24


def values_of(name: str, step: int = 0) -> list[Tensor]:
    """Values for all samples, which change a little with the step."""
    family = family_of(name)
    start, end = family.sample(SAMPLES, 0), family.sample(SAMPLES, 1)
    return [(1 - 1e-4 * step) * a + 1e-4 * step * b for a, b in zip(start, end, strict=True)]


def shuffled(seed: int) -> list[Tensor]:
    """An epoch's mini-batches."""
    return list(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed)).split(8))


def taken(values: list[Tensor], batch: Tensor) -> list[Tensor]:
    return [value[batch].requires_grad_() for value in values]


def evaluate(layer: Any, values: list[Tensor], batch: Tensor, **call: Any) -> list[Tensor]:
    """Outputs and gradients."""
    leaves = taken(values, batch)
    outputs = layer(*leaves, **call)
    loss = torch.stack([output.square().sum() for output in outputs]).sum()
    return [*(output.detach() for output in outputs), *torch.autograd.grad(loss, leaves)]


def work(layer: Any) -> Tensor:
    """What a pass has taken, by instance."""
    return layer.report.forward.newton_steps + layer.report.forward.iterations


def close(mine: list[Tensor], theirs: list[Tensor], tol: float = 1e-12) -> None:
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tol, atol=tol * (1 + float(other.abs().max())))


def by_engine(engine: str, name: str, **options: Any) -> Any:
    return layer_of(family_of(name), engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["dense_qp20", "portfolio", "robust_portfolio", "total_variation"])
def test_shuffled_samples_begin_at_their_own_solutions(engine: str, name: str) -> None:
    warm, cold = by_engine(engine, name), by_engine(engine, name)
    for step in range(3):
        values, spent = values_of(name, step), [0.0, 0.0]
        for batch in shuffled(step):
            mine = evaluate(warm, values, batch, warm_start=True, samples=batch)
            close(mine, evaluate(cold, values, batch))
            spent = [spent[0] + float(work(warm).sum()), spent[1] + float(work(cold).sum())]
        if step == 0:
            assert engine == "tensors" or spent[0] == spent[1]
        else:
            assert spent[0] < (0.5 if engine == "lanes" else 1.01) * spent[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["dense_qp20", "robust_portfolio", "multi_label", "least_absolute"])
def test_a_bad_start_changes_nothing(engine: str, name: str) -> None:
    layer, values = by_engine(engine, name), values_of(name)
    for batch in shuffled(0):
        expected = evaluate(by_engine(engine, name), values, batch)
        wrong = (batch + 7) % SAMPLES
        close(evaluate(layer, values, batch, warm_start=True, samples=wrong), expected, 1e-11)


@needs_lanes
def test_unknown_samples_begin_cold_beside_known_ones() -> None:
    layer, values = by_engine("lanes", "portfolio"), values_of("portfolio")
    known, mixed = torch.arange(8), torch.tensor([0, 1, 2, 3, 20, 21, 22, 23])
    evaluate(layer, values, known, warm_start=True, samples=known)
    mine = evaluate(layer, values, mixed, warm_start=True, samples=mixed)
    iterations = layer.report.forward.iterations
    assert (iterations[:4] == 0).all()
    assert (iterations[4:] > 0).all()
    close(mine, evaluate(by_engine("lanes", "portfolio"), values, mixed))


@pytest.mark.parametrize("engine", ENGINES)
def test_without_samples_the_last_batch_of_the_same_size(engine: str) -> None:
    layer, values = by_engine(engine, "total_variation"), values_of("total_variation")
    few, many = torch.arange(4), torch.arange(8)
    expected = evaluate(layer, values, many)
    cold = work(layer)
    close(evaluate(layer, values, many, warm_start=True), expected)
    evaluate(layer, values, many, warm_start=True)
    assert work(layer).sum() < cold.sum()
    evaluate(layer, values, few, warm_start=True)
    assert engine == "tensors" or torch.equal(work(layer), cold[:4])


@needs_lanes
def test_a_plain_call_is_a_start_while_its_outputs_live() -> None:
    layer, values = by_engine("lanes", "portfolio"), values_of("portfolio")
    batch, others = torch.arange(8), torch.arange(8, 16)
    outputs = layer(*taken(values, batch))
    cold = work(layer)
    layer(*taken(values, batch), warm_start=True)
    assert work(layer).sum() == 0
    outputs = layer(*taken(values, others))  # from here on what is left is the batch before
    del outputs
    layer(*taken(values, batch), warm_start=True)
    assert work(layer).sum() == 0
    layer.forget()
    layer(*taken(values, batch), warm_start=True)
    assert torch.equal(work(layer), cold)


def bounded(**options: Any) -> Any:
    """(x − c)² with l ≤ x ≤ u: infeasible where l > u."""
    x, c, low, high = cp.Variable(2), cp.Parameter(2), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [low <= x, x <= high])
    return CvxpyLayer(problem, [c, low, high], [x], **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("on_unsolvable", ["raise", "nan"])
def test_only_solved_instances_are_remembered(engine: str, on_unsolvable: str) -> None:
    layer = bounded(engine=engine, on_unsolvable=on_unsolvable)
    c = torch.tensor([[0.5, 2.0], [0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    low, high = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    low[1] = 2.0
    if on_unsolvable == "nan":
        c[2, 0] = torch.nan
        layer(c, low, high, warm_start=True, samples=[5, 6, 7])
    else:
        with pytest.raises(InfeasibleError):
            layer(c, low, high, warm_start=True, samples=[5, 6, 7])
    assert len(layer.session.starts.by_sample) == (1 if on_unsolvable == "nan" else 2)
    points, _ = layer.session.starts.by_sample.find(torch.tensor([5, 6]).numpy())
    assert (points[0, :2] - [0.5, 1.0]).max() < 1e-9
    assert (points[1] != points[1]).all()
    low[1], c[2, 0] = 0.0, 0.3
    layer(c, low, high, warm_start=True, samples=[5, 6, 7])
    assert len(layer.session.starts.by_sample) == 3


def points_of(layer: Any, ids: Tensor) -> Any:
    points, _ = layer.session.starts.by_sample.find(ids.numpy())
    return points


@needs_lanes
def test_an_unsolved_instance_leaves_what_is_known_of_its_sample() -> None:
    layer, ids = bounded(engine="lanes", on_unsolvable="nan"), torch.tensor([5, 6, 7])
    c = torch.tensor([[0.5, 2.0], [0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    low, high = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    layer(c, low, high, warm_start=True, samples=ids)
    low[1] = 2.0
    (x,) = layer(c - 0.1, low, high, warm_start=True, samples=ids)
    assert x[1].isnan().all()
    expected = torch.tensor([[0.4, 1.0], [0.1, 0.2], [0.2, 0.3]], dtype=torch.float64)
    kept = torch.from_numpy(points_of(layer, ids)[:, 2:4])  # behind what the sum of squares adds
    torch.testing.assert_close(kept, expected, rtol=1e-9, atol=1e-9)


@needs_lanes
@pytest.mark.parametrize("name", ["portfolio", "total_variation", "dense_qp20"])
def test_points_renewed_where_they_are_kept_are_those_that_copies_lead_to(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one sample stands twice in a batch, which cannot be renewed in place: the latter counts."""
    runs = []
    for in_place in (True, False):
        layer, renewed, found = by_engine("lanes", name), list[bool](), list[Any]()
        keep = WarmStart.keep

        def kept(self: Any, *given: Any, renewed: list[bool] = renewed, keep: Any = keep, **how: Any) -> None:
            renewed.append(self._kept is not None and self._kept.renewed)
            keep(self, *given, **how)

        with monkeypatch.context() as patch:
            patch.setattr(WarmStart, "keep", kept)
            if not in_place:
                patch.setattr(WarmStart, "where", WarmStart.points)
            for step in range(3):
                batches = [*shuffled(step), torch.tensor([3, 4, 3, 9])]
                for batch in batches:
                    values = values_of(name, step)
                    found += evaluate(layer, values, batch, warm_start=True, samples=batch)
        found.append(torch.from_numpy(points_of(layer, torch.arange(SAMPLES))))
        assert renewed == [in_place and step > 0 and place < 3 for step in range(3) for place in range(4)]
        runs.append(found)
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@needs_lanes
@pytest.mark.parametrize(
    ("samples", "error", "says"),
    [
        (torch.tensor([0.0, 1.0]), TypeError, "samples: expected integer ids"),
        ([True, False], TypeError, "samples: expected integer ids"),
        (["a", "b"], TypeError, "samples: expected integer ids"),
        ([0, 1, 2], ValueError, "samples: expected 2 ids, one for each instance"),
        (torch.zeros(2, 1, dtype=torch.long), ValueError, "samples: expected 2 ids"),
        ([3, -1], ValueError, "samples: expected nonnegative ids, got -1 for instance 1"),
    ],
)
def test_errors(samples: Any, error: type[Exception], says: str) -> None:
    layer, params = by_engine("lanes", "least_absolute"), family_of("least_absolute").sample(2, 0)
    with pytest.raises(error, match=says):
        layer(*params, warm_start=True, samples=samples)
    layer(*params, warm_start=True, samples=[0, 1])


@needs_lanes
def test_samples_ask_for_a_warm_start() -> None:
    layer, params = by_engine("lanes", "least_absolute"), family_of("least_absolute").sample(2, 0)
    with pytest.raises(ValueError, match="samples: expected warm_start=True beside it"):
        layer(*params, samples=[0, 1])


@needs_lanes
def test_ids_of_any_kind_and_size() -> None:
    layer, values = by_engine("lanes", "portfolio"), values_of("portfolio")
    one = [value[0] for value in values]
    layer(*one, warm_start=True, samples=10**15)
    layer(*one, warm_start=True, samples=torch.tensor(10**15, dtype=torch.int64))
    assert work(layer).sum() == 0
    two = [value[:2] for value in values]
    layer(*two, warm_start=True, samples=(7, 7))
    layer(*two, warm_start=True, samples=torch.tensor([10**15, 7], dtype=torch.int64))
    assert work(layer)[0] == 0
    layer.forget()
    assert len(layer.session.starts.by_sample) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_calls_give_equal_bits(engine: str) -> None:
    def train() -> list[Tensor]:
        layer, found = by_engine(engine, "mpc"), []
        for step in range(2):
            for batch in shuffled(step):
                values = values_of("mpc", step)
                found += evaluate(layer, values, batch, warm_start=True, samples=batch)
        return found

    for one, other in zip(train(), train(), strict=True):
        assert torch.equal(one, other)


@needs_lanes
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_remember_nothing(copied: Any) -> None:
    layer, values = by_engine("lanes", "portfolio"), values_of("portfolio")
    batch = torch.arange(8)
    evaluate(layer, values, batch, warm_start=True, samples=batch)
    other = copied(layer)
    evaluate(other, values, batch, warm_start=True, samples=batch)
    assert (other.report.forward.iterations > 0).all()
    evaluate(layer, values, batch, warm_start=True, samples=batch)
    assert work(layer).sum() == 0


@needs_lanes
def test_threads_share_a_layer() -> None:
    layer, values = by_engine("lanes", "portfolio"), values_of("portfolio")
    expected = layer(*values)[0].detach()
    wrong: list[float] = []

    def train(seed: int) -> None:
        for step in range(10):
            for batch in shuffled(10 * seed + step):
                found = layer(*taken(values, batch), warm_start=True, samples=batch)[0].detach()
                wrong.append(float((found - expected[batch]).abs().max()))

    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 120
    assert max(wrong) < 1e-11
    assert len(layer.session.starts.by_sample) == SAMPLES


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_start_is_worth_outlasts_its_scaling(engine: str) -> None:
    """Data that grow by the thousandfold, from one visit to the next by a fifth: the same answers as cold."""
    layer, cold = by_engine(engine, "dense_qp5"), by_engine(engine, "dense_qp5")
    values, batch = values_of("dense_qp5"), torch.arange(4)
    for step in range(40):
        grown = [value * 1.2**step if k % 2 else value for k, value in enumerate(values)]
        mine = evaluate(layer, grown, batch, warm_start=True, samples=batch)
        close(mine, evaluate(cold, grown, batch), 1e-9)


@needs_lanes
def test_scalings_are_kept_only_where_the_batch_does_not_share_its_matrices() -> None:
    """One matrix for all, and one for each, in turns: each begins where the other ended."""
    x, A, b = cp.Variable(4), cp.Parameter((6, 4)), cp.Parameter(6)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
    layer, cold = (CvxpyLayer(problem, parameters=[A, b], variables=[x], engine="lanes") for _ in range(2))
    draw = torch.Generator().manual_seed(0)
    one, right = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((6, 4), (5, 6)))
    each, ids = one + 1e-6 * torch.randn(5, 6, 4, generator=draw, dtype=torch.float64), torch.arange(5)
    structure, widths = layer.session.entries.structure, list[int]()
    for step, matrix in enumerate((one, each, one, each)):
        leaves = [matrix.clone().requires_grad_(), right.clone().requires_grad_()]
        passes = []
        for who, call in ((layer, {"warm_start": True, "samples": ids}), (cold, {})):
            (found,) = who(*leaves, **call)
            passes.append([found.detach(), *torch.autograd.grad(found.square().sum(), leaves)])
        close(*passes, tol=1e-11)
        assert step == 0 or not layer.report.forward.iterations.any()
        points, _ = layer.session.starts.by_sample.find(ids.numpy())
        assert points is not None
        widths.append(points.shape[1])
    n, m = structure.n, structure.m
    assert widths == [n + 2 * m] + 3 * [2 * n + 3 * m + 1]
