"""The layer among PyTorch's own tools: copies, files, processes, threads, compilation, autocast."""

import copy
import io
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from problems.marks import long
from problems.small_layer import Model, Solutions, data, make_layer, train_one_half

both_engines = pytest.mark.usefixtures("engine")


def loss_and_gradients(model: Model, features: Tensor) -> list[Tensor]:
    output = model(features)
    gradients = torch.autograd.grad(output.square().sum(), list(model.parameters()))
    return [output.detach(), *gradients]


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def through_a_file(model: Model) -> Model:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), through_a_file]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle", "save"])
def test_copies_give_the_same_answers(duplicate: Callable[[Model], Model], used: bool) -> None:
    model, features = Model(), torch.randn(5, 3, dtype=torch.float64)
    if used:
        model(features).sum().backward()
    expected = loss_and_gradients(model, features)
    assert_same(loss_and_gradients(duplicate(model), features), expected)


def test_a_deep_copy_is_independent() -> None:
    model = Model()
    model(torch.randn(2, 3, dtype=torch.float64))
    other = copy.deepcopy(model)
    other(torch.randn(5, 3, dtype=torch.float64))
    assert model.layer.report is not None
    assert len(model.layer.report.forward.status) == 2


@both_engines
def test_state_dict_round_trip() -> None:
    model, other = Model(), Model()
    assert list(model.layer.state_dict()) == []
    assert set(model.state_dict()) == {"linear.weight", "linear.bias", "A"}
    other.load_state_dict(model.state_dict())
    features = torch.randn(4, 3, dtype=torch.float64)
    assert_same(loss_and_gradients(other, features), loss_and_gradients(model, features))


@both_engines
def test_moving_and_casting_a_model() -> None:
    model = Model().to("cpu").float().train()
    out = model(torch.randn(4, 3))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert model.linear.weight.grad is not None
    assert model.linear.weight.grad.dtype == torch.float32
    assert model.eval().bfloat16()(torch.randn(4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_forward_hooks_see_the_outputs() -> None:
    layer, seen = make_layer(), []
    layer.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0].shape))
    layer(*data(0))
    assert seen == [(3, 4)]


@both_engines
def test_threads_share_a_layer() -> None:
    layer = make_layer()

    def job(seed: int) -> list[Tensor]:
        inputs = data(seed, batch=1 + seed % 4)
        (x,) = layer(*inputs)
        return [x.detach(), *torch.autograd.grad(x.square().sum(), inputs)]

    expected = [job(seed) for seed in range(32)]
    with ThreadPoolExecutor(8) as pool:
        for found, one in zip(pool.map(job, range(32)), expected, strict=True):
            assert_same(found, one)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=long)])
def test_data_loader_workers(start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    solutions = Solutions(make_layer())
    solutions[0]
    loader = torch.utils.data.DataLoader(
        solutions, batch_size=3, num_workers=2, multiprocessing_context=start
    )
    found = torch.cat(list(loader))
    expected = torch.stack([solutions[i] for i in range(len(solutions))])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@long
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed_data_parallel(tmp_path: Path) -> None:
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    model, features = Model(), torch.randn(6, 3, dtype=torch.float64)
    gradients = str(tmp_path / "gradients")
    # This process keeps the store: a file's is removed by the first child that ends, under the other's feet.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    arguments = (store.port, gradients, features, model.state_dict())
    start_processes(train_one_half, arguments, nprocs=2, start_method="spawn")
    model(features).square().sum(1).mean().backward()
    for found, p in zip(torch.load(gradients), model.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-9, atol=1e-10)


@both_engines
def test_autocast_leaves_the_solve_alone() -> None:
    layer = make_layer()
    A, b = (value.detach().float() for value in data(1))
    (expected,) = layer(A, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = layer(A, b)
        mixed = layer(A, torch.nn.Linear(6, 6)(b))[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert mixed.isfinite().all()


@both_engines
def test_anomaly_detection_and_accumulation() -> None:
    layer, (A, b) = make_layer(), data(2)
    with warnings.catch_warnings(), torch.autograd.detect_anomaly():
        warnings.simplefilter("ignore")
        layer(A, b)[0].sum().backward()
    assert b.grad is not None
    once = b.grad.clone()
    layer(A, b)[0].sum().backward()
    torch.testing.assert_close(b.grad, 2 * once, rtol=1e-9, atol=1e-10)


@both_engines
def test_views_and_expanded_tensors() -> None:
    layer, (A, b) = make_layer(), data(3)
    flipped: Any = A.detach().mT.contiguous().mT
    shared = b[:1].detach().expand(3, 6)
    assert not flipped.is_contiguous()
    torch.testing.assert_close(layer(flipped, shared)[0], layer(A, b[0])[0].detach(), rtol=1e-9, atol=1e-10)
