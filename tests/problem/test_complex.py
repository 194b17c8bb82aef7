"""Complex, imaginary and Hermitian parameters, variables and duals, against closed forms and Clarabel."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.errors import ParameterTypeError
from cvxfold.torch import CvxpyLayer
from problems.lagrangian import Optimum, solved_by_clarabel

ATTRIBUTES = ["complex", "imag", "hermitian"]


def squared(expression: Any) -> Any:
    """Σ |z|²."""
    flat = expression.flatten(order="C")
    return cp.sum_squares(cp.real(flat)) + cp.sum_squares(cp.imag(flat))


def random_complex(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def hermitian(value: Tensor) -> Tensor:
    return (value + value.mH) / 2


def projection_onto_disc(**attributes: Any) -> tuple[CvxpyLayer, cp.Parameter]:
    """Each entry of p to |z| ≤ 1."""
    z, p = cp.Variable(3, complex=True), cp.Parameter(3, **attributes)
    return CvxpyLayer(cp.Problem(cp.Minimize(squared(z - p)), [cp.abs(z) <= 1]), [p], [z]), p


def onto_disc(p: Tensor) -> Tensor:
    return p / p.abs().clamp_min(1.0)


def test_the_projection_onto_discs(engine: str) -> None:
    """p / max(1, |p|), and its gradient in PyTorch's convention."""
    layer, _ = projection_onto_disc(complex=True)
    p = 2 * random_complex(5, 3)
    weights = random_complex(5, 3, seed=1)
    found, true = (value.clone().requires_grad_() for value in (p, p))
    (z,) = layer(found)
    assert z.dtype == torch.complex128
    expected = onto_disc(true)
    assert (z - expected).abs().max() < 1e-8
    (weights.conj() * z).real.sum().backward()
    (weights.conj() * expected).real.sum().backward()
    assert found.grad is not None
    assert true.grad is not None
    assert (found.grad - true.grad).abs().max() < 1e-6


@pytest.mark.parametrize(("given", "returned"), [("complex64", "complex64"), ("float32", "complex64")])
def test_dtypes(given: str, returned: str) -> None:
    layer, _ = projection_onto_disc(complex=True)
    (z,) = layer(torch.tensor([0.5, 2.0, -3.0]).to(getattr(torch, given)))
    assert z.dtype == getattr(torch, returned)
    assert (z - torch.tensor([0.5, 1.0, -1.0])).abs().max() < 1e-6


def test_a_real_value_of_a_complex_parameter_has_a_real_gradient() -> None:
    layer, _ = projection_onto_disc(complex=True)
    p = torch.tensor([0.5, 0.3, -0.4], dtype=torch.float64, requires_grad=True)
    (z,) = layer(p)
    z.real.sum().backward()
    assert p.grad is not None
    assert (p.grad - 1).abs().max() < 1e-7


def test_imaginary_parameters_take_imaginary_values_alone() -> None:
    layer, _ = projection_onto_disc(imag=True)
    p = torch.tensor([0.5j, 2j, -3j], dtype=torch.complex128)
    (z,) = layer(p)
    assert (z - onto_disc(p)).abs().max() < 1e-8
    with pytest.raises(ParameterTypeError, match="expected a complex dtype"):
        layer(torch.ones(3))
    with pytest.raises(ValueError, match="expected imaginary numbers"):
        layer(p + 1)


def test_real_parameters_take_no_complex_values() -> None:
    x, p = cp.Variable(2), cp.Parameter(2, name="p")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
    with pytest.raises(ParameterTypeError, match=r"parameter 0 \(p\): expected a dtype of real numbers"):
        layer(torch.ones(2, dtype=torch.complex64))


def nearest(**attributes: Any) -> tuple[CvxpyLayer, cp.Problem, cp.Parameter]:
    """The nearest semidefinite matrix to a Hermitian one."""
    X, H = cp.Variable((3, 3), hermitian=True), cp.Parameter((3, 3), **attributes)
    problem = cp.Problem(cp.Minimize(squared(X - H)), [X >> 0])
    return CvxpyLayer(problem, [H], [X, problem.constraints[0].dual_variables[0]], tol=1e-11), problem, H


def clipped(H: Tensor) -> Tensor:
    """The semidefinite part of Hermitian matrices."""
    values, Q = torch.linalg.eigh(H)
    return (Q * values.clamp_min(0).unsqueeze(-2)) @ Q.mH


def test_the_nearest_semidefinite_matrix_and_its_dual(engine: str) -> None:
    """X = H₊, and 2 (X − H) = Λ by stationarity of |X − H|² − ⟨Λ, X⟩."""
    layer, _, _ = nearest(hermitian=True)
    H = hermitian(random_complex(4, 3, 3))
    X, dual = layer(H)
    assert (X - clipped(H)).abs().max() < 1e-8
    assert (dual - 2 * clipped(-H)).abs().max() < 1e-7


def test_its_gradient_by_finite_differences(engine: str) -> None:
    layer, _, _ = nearest(hermitian=True)
    H = hermitian(random_complex(3, 3)).requires_grad_()
    way, weights = hermitian(random_complex(3, 3, seed=1)), random_complex(3, 3, seed=2)
    (gradient,) = torch.autograd.grad((weights.conj() * layer(H)[0]).real.sum(), H)
    with torch.no_grad():
        values = [(weights.conj() * clipped(H + step * way)).real.sum() for step in (1e-5, -1e-5)]
    slope = float(values[0] - values[1]) / 2e-5
    assert float((gradient.conj() * way).real.sum()) == pytest.approx(slope, rel=1e-6)


def test_a_hermitian_parameter_that_is_given_a_real_symmetric_matrix() -> None:
    """Once silently wrong: its entries were taken for a triangle."""
    layer, _, _ = nearest(hermitian=True)
    S = hermitian(random_complex(3, 3)).real
    X, _ = layer(S)
    assert (X - clipped(S.to(torch.complex128))).abs().max() < 1e-8
    with pytest.raises(ValueError, match="expected a Hermitian matrix"):
        layer(random_complex(3, 3))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("attribute", ["complex", "imag"])
def test_complex_equations_have_complex_duals(attribute: str, shape: tuple[int, ...]) -> None:
    declared: dict[str, Any] = {attribute: True}
    z, p = cp.Variable(shape, **declared), cp.Parameter(shape, **declared)
    value, weights = random_complex(*shape).numpy(), random_complex(*shape, seed=3).numpy()
    value = 1j * np.imag(value) if attribute == "imag" else value
    constraints: list[Any] = [
        cp.sum(cp.multiply(weights, z)) == cp.sum(cp.multiply(weights, 0.5j * np.ones(shape)))
    ]
    constraints += [cp.abs(z) <= 0.8]
    problem = cp.Problem(cp.Minimize(squared(z - p)), constraints)
    optimum = Optimum(problem, [p], [value])
    assert optimum.slope() < 1e-6
    assert optimum.gap() < 1e-7
    optimum.put(optimum.x)
    assert problem.objective.value == pytest.approx(solved_by_clarabel(problem), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("axis", "shape"), [(0, (3,)), (0, (3, 2)), (1, (3, 2))], ids=str)
def test_second_order_cones_of_complex_vectors(axis: int, shape: tuple[int, ...]) -> None:
    """Of which cvxpy has no duals."""
    Z, P = cp.Variable(shape, complex=True), cp.Parameter(shape, complex=True)
    t = cp.Variable(() if len(shape) == 1 else (shape[1 - axis],))
    problem = cp.Problem(cp.Minimize(squared(Z - P) + cp.sum_squares(t - 0.1)), [cp.SOC(t, Z, axis=axis)])
    optimum = Optimum(problem, [P], [random_complex(*shape).numpy()])
    assert optimum.slope() < 1e-6
    assert optimum.gap() < 1e-7


@pytest.mark.parametrize("name", ["PSD", "NSD"])
@pytest.mark.parametrize("kind", [cp.Variable, cp.Parameter])
def test_complex_and_semidefinite_at_once_is_refused(kind: Any, name: str) -> None:
    """cvxpy 1.9.0 forgets that such a variable is semidefinite."""
    leaf, other = kind((2, 2), complex=True, **{name: True}), cp.Variable((2, 2), complex=True)
    problem = cp.Problem(cp.Minimize(squared(leaf - other)))
    with pytest.raises(ValueError, match="complex and semidefinite at once"):
        CvxpyLayer(problem, problem.parameters(), problem.variables())


@pytest.mark.parametrize("kind", [cp.Variable, cp.Parameter])
def test_stacks_of_hermitian_matrices_are_refused(kind: Any) -> None:
    leaf, other = kind((2, 2, 2), hermitian=True), cp.Variable((2, 2, 2), complex=True)
    problem = cp.Problem(cp.Minimize(squared(leaf - other)))
    with pytest.raises(ValueError, match="declared hermitian with shape"):
        CvxpyLayer(problem, problem.parameters(), problem.variables())


def test_copies_and_batches_of_one() -> None:
    """A shared parameter, a batch, and an imaginary one beside a real one."""
    z, a, b = cp.Variable(2, complex=True), cp.Parameter(2, imag=True), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(squared(z - a - b))), [a, b], [z])
    imaginary = 1j * torch.tensor([1.0, -2.0], dtype=torch.float64)
    real = torch.tensor([[3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    (found,) = layer(imaginary, real)
    assert (found - (real + imaginary)).abs().max() < 1e-8


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_dual_variable_of_a_hermitian_matrix(engine: str, size: int) -> None:
    """Of ‖X − H‖² over X ⪰ 0 with trace 1: X = (H − tI)₊ and Z = 2(tI − H)₊, and Z has its derivative.

    The canonical form has a real matrix of twice the size, of whose multipliers many make the same Z.
    """
    X, H = cp.Variable((size, size), hermitian=True), cp.Parameter((size, size), hermitian=True)
    psd: Any = X >> 0
    one: Any = cp.real(cp.trace(X)) == 1
    problem = cp.Problem(cp.Minimize(squared(X - H)), [psd, one])
    layer = CvxpyLayer(problem, [H], [X, psd.dual_variables[0]])
    value = 2 * hermitian(random_complex(3, size, size, seed=size))
    given, true = (value.clone().requires_grad_() for value in (value, value))
    found = layer(given)
    values, vectors = torch.linalg.eigh(hermitian(true))
    order = values.flip(-1)
    levels = (order.cumsum(-1) - 1) / torch.arange(1, size + 1)
    level = torch.where(order > levels, levels, -torch.inf).amax(-1, keepdim=True)
    parts = (values - level).clamp(min=0), 2 * (level - values).clamp(min=0)
    expected = [vectors @ torch.diag_embed(part).to(vectors.dtype) @ vectors.mH for part in parts]
    for mine, right in zip(found, expected, strict=True):
        assert (mine - right).abs().max() < 1e-8
    weights = [random_complex(3, size, size, seed=seed) for seed in (7, 8)]
    for outputs in (found, expected):
        terms = [(w.conj() * v).real.sum() for w, v in zip(weights, outputs, strict=True)]
        torch.stack(terms).sum().backward()
    assert given.grad is not None
    assert true.grad is not None
    assert (hermitian(given.grad) - hermitian(true.grad)).abs().max() < 1e-6
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert set(report.backward.verdict) == {cvxfold.Verdict.CONVERGED}
