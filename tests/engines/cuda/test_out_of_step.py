"""Threads that share an instance need not be in step: whoever runs when, the answers have the same bits."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.engines.cuda.by_device import Batches
from cvxfold.torch import CvxpyLayer
from problems.emulated import EmulatedBatch, Emulator, compiler
from problems.families import minimize
from problems.marks import needs_lanes

pytestmark = [pytest.mark.long, pytest.mark.skipif(compiler is None, reason="no C++ compiler"), needs_lanes]
Case = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable], list[Any]]
FEW = 4  # instances of a warp, of eight threads each


def orthant() -> Case:
    x, low, cost = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = minimize(cost @ x, x >= low, cp.sum(x) >= -2, x[0] + x[1] <= 3)
    return problem, [low, cost], [x], [
        [[0, 0, 0], [3, 2, 0], [0, 0, 0], [-1, 0, 0]], [[1, 2, 3], [1, 1, 1], [1, 1, -1], [0, 0, 1]],
    ]  # fmt: skip


def second_order(size: int = 21) -> Case:
    x, t, radius, cost = cp.Variable(size), cp.Variable(), cp.Parameter(), cp.Parameter(size)
    problem = minimize(cost @ x + t, cp.norm(x - 1) <= radius, cp.norm(x[:3]) <= t, cp.norm(x[3]) <= 9)
    costs = np.cos(np.arange(3 * size)).reshape(3, size)
    return problem, [radius, cost], [x, t], [[1.0, -0.5, 30.0], costs]


def semidefinite() -> Case:
    X, B, most = cp.Variable((4, 4), symmetric=True), cp.Parameter((4, 4), symmetric=True), cp.Parameter()
    problem = minimize(cp.trace(X) + cp.norm(X[0]), X >> np.diag(np.arange(4) - 1.0), X >> B, X[3, 3] <= most)
    matrices = np.cos(np.arange(48)).reshape(3, 4, 4)
    return problem, [B, most], [X], [matrices + matrices.swapaxes(1, 2), [9.0, -5.0, 4.0]]


def exponential() -> Case:
    x, least, most = cp.Variable(9), cp.Parameter(9), cp.Parameter()
    problem = minimize(cp.sum_squares(x) - cp.sum(cp.log(x)), cp.log(x) >= least, cp.sum(cp.exp(x)) <= most)
    return problem, [least, most], [x], [-np.arange(27).reshape(3, 9) / 9.0, [90.0, 8.0, 50.0]]


def powers() -> Case:
    x, y, z = (cp.Variable(9) for _ in range(3))
    least, most = cp.Parameter(), cp.Parameter(9)
    problem = minimize(
        cp.sum_squares(x) + cp.sum(y), cp.PowCone3D(x, y, z, 0.3), z[0] >= least, z >= -1, y <= most
    )
    return problem, [least, most], [x, y, z], [[1.0, 2.0, 1.0], np.ones((3, 9)) * [[4.0], [1.0], [-1.0]]]


def degenerate() -> Case:
    """An assignment, whose solutions are not unique, with a kink in each: for the interior-point method."""
    X, C = cp.Variable((4, 4)), cp.Parameter((4, 4))
    problem = minimize(
        cp.sum(cp.multiply(C, X)) + 0.1 * cp.norm(X, 2),
        X >= 0,
        cp.sum(X, axis=0) == 1,
        cp.sum(X, axis=1) == 1,
    )
    return problem, [C], [X], [np.round(3 * np.cos(np.arange(48))).reshape(3, 4, 4)]


AT_NO_KINK = slice(2, None)


def at_a_kink() -> Case:
    """max(c, 0) where c = 0, and the projection of the ball's boundary; then neither."""
    x, c = cp.Variable(4), cp.Parameter(4)
    problem = minimize(cp.sum_squares(x - c), x[0] >= 0, cp.norm(x[1:]) <= 1)
    return problem, [c], [x], [[[0.0, 1, 0, 0], [1.0, 0.6, 0.8, 0], [-1.0, 3, 4, 0]]]


CASES = [orthant, second_order, semidefinite, exponential, powers, degenerate, at_a_kink]
WAYS: list[dict[str, Any]] = [{}, {"refine": False, "tol": 1e-7}]


def answers(case: Case, way: dict[str, Any]) -> tuple[list[str], list[Tensor]]:
    """Statuses, points and gradients; then those of a call that begins where the first has ended."""
    problem, parameters, variables, given = case
    layer = CvxpyLayer(
        problem, parameters, variables, engine="lanes", on_unsolvable="nan", on_unconverged="ignore",
        on_degenerate="ignore", rescue=False, **way,
    )  # fmt: skip
    statuses: list[str] = []
    found: list[Tensor] = []
    for warm in (False, True):
        params = [torch.tensor(value, dtype=torch.float64).requires_grad_() for value in given]
        outputs = layer(*params, warm_start=warm)
        loss = torch.stack([(x * (1 + x.detach().cos())).nansum() for x in outputs]).sum()
        assert layer.report is not None
        statuses += layer.report.forward.status
        found += [*(x.detach() for x in outputs), *torch.autograd.grad(loss, params)]
    return statuses, found


def emulate(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    def on(self: Any, device: torch.device) -> EmulatedBatch:
        made = EmulatedBatch(emulator, *self._made_from)
        self.on = lambda device: made
        return made

    monkeypatch.setattr(Batches, "on", on)


@pytest.mark.parametrize("way", WAYS, ids=["refined", "by F alone"])
@pytest.mark.parametrize("case", CASES)
def test_the_order_of_threads_is_nowhere_in_the_answers(
    case: Callable[[], Case],
    way: dict[str, Any],
    emulator_of: Callable[[int], Emulator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refined = way.get("refine", True)
    if case is (semidefinite if refined else powers):
        way = way | {"max_iters": 150}  # these take thousands, and each of them long
    given = case()
    if case is powers and refined:
        given[-1][1][2] = -100.0  # so far from any solution that it is soon seen that there is none
    alone = answers(given, way)
    emulate(monkeypatch, emulator_of(FEW))
    runs = [answers(given, way) for _ in range(2 if refined else 1)]  # many iterations take long
    assert runs[0][0] == runs[-1][0] == alone[0]
    for k, (one, other, expected) in enumerate(zip(runs[0][1], runs[-1][1], alone[1], strict=True)):
        assert torch.equal(one.nan_to_num(7e9), other.nan_to_num(7e9))
        if case is at_a_kink and k % 2:  # a gradient: the side of the kink is up to the order of sums
            one, expected = one[AT_NO_KINK], expected[AT_NO_KINK]
        if case is degenerate:  # of its many solutions, too; costs that all move alike move none
            costs = torch.tensor(case()[-1][0])
            one, expected = (
                (costs * X).sum((1, 2)) + 0.1 * torch.linalg.matrix_norm(X, 2) if k % 2 == 0 else X.sum()
                for X in (one, expected)
            )
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6 if refined else 1e-5, equal_nan=True)


KERNELS = """
#include "warp.hpp"
static double numbers[33];
extern "C" const char *broken(int which, unsigned lot) {
    return run_warps(1, lot, [which] {
        const int own = threadIdx.x;
        numbers[own] = own;
        if (which != 0)
            __syncwarp();
        const double next = numbers[(own + 1) % 32];
        if (which == 1)
            __syncwarp();
        if (which != 3 || own != 5)
            __syncwarp();
        if (which != 2)
            __syncwarp();
        numbers[which == 2 ? 32 : own] = next;
    });
}
"""


def test_what_is_out_of_order_is_found(tmp_path: Path) -> None:
    """0: a number read before all have waited for it; 2: one that all write; 3: one who does not wait."""
    here = Path(EmulatedBatch.__init__.__code__.co_filename).parent
    (tmp_path / "broken.cpp").write_text(KERNELS)
    flags = ["-std=c++17", "-O1", "-g1", "-fPIC", f"-I{here}"]
    assert compiler is not None
    for source, more in ((here / "warp.cpp", []), (tmp_path / "broken.cpp", ["-fsanitize=thread"])):
        target = tmp_path / f"{source.stem}.o"
        subprocess.run([compiler, *flags, *more, "-c", source, "-o", target], check=True)
    module = tmp_path / "broken.so"
    objects = [tmp_path / "warp.o", tmp_path / "broken.o"]
    subprocess.run([compiler, "-shared", *objects, "-ldl", "-o", module], check=True)
    run = ctypes.CDLL(str(module)).broken
    run.restype = ctypes.c_char_p
    for lot in range(5):
        said = [run(which, lot).decode() for which in range(4)]
        assert "race" in said[0]
        assert said[1] == ""
        assert "race" in said[2]
        assert "apart" in said[3]
