"""CVXPY's language, case by case: small problems around each atom, and what a layer makes of them.

``python tests/problems/language.py`` writes the tables of docs/language.md anew.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer
from problems.atoms import APPROXIMATE, ATOMS, GEOMETRIC
from problems.constraint_cases import (
    BY_SHAPE,
    Given,
    is_optimal,
    powers,
    second_order,
    semidefinite,
)
from problems.lagrangian import direction

Shape = tuple[int, ...]
SHAPES: list[Shape] = [(), (3,), (2, 3), (3, 3), (2, 2, 2)]
RIGHT, NONE, REFUSED = "right", "–", "refused"
_SETS = ("nonneg", "nonpos", "pos", "neg", "bounds", "PSD", "NSD")
_NAMED = ("Problem must be DPP", "problem: ", "variable ", "parameter ")
PAGE = Path(__file__).parents[2] / "docs" / "language.md"


@dataclass(frozen=True)
class Case:
    """A problem with one parameter.

    Args:
        problem: the problem. parameter: its own. value: of the parameter, ``(*shape)``.
        way: a change of the value that stays in its set.
        gp: whether it is a geometric program.
        approximate: whether cvxpy solves it by approximations that its values do not have, or has none.
    """

    problem: cp.Problem
    parameter: cp.Parameter
    value: np.ndarray
    way: np.ndarray
    gp: bool = False
    approximate: bool = False


def outcome(case: Case) -> str:
    """What a layer makes of it: right, or refused.

    Raises:
        AssertionError: it is wrong, by Clarabel's solution, by the values of the problem around it, or by its
            gradient beside finite differences.
    """
    variables = case.problem.variables()
    try:
        layer = CvxpyLayer(case.problem, [case.parameter], variables, gp=case.gp, tol=1e-10)
    except ValueError as error:
        return _refused(error)
    assert case.gp or case.problem.is_dcp()
    given = torch.as_tensor(case.value).requires_grad_()
    found = layer(given)
    _is_optimal(case, [np.asarray(each.detach().numpy()) for each in found])
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(each.shape, dtype=each.dtype, generator=generator) for each in found]
    (gradient,) = torch.autograd.grad(_inner(weights, found), given)
    way, step = torch.as_tensor(case.way), 1e-5
    slope = float((gradient.conj() * way).real.sum())
    with torch.no_grad():
        ahead, behind = (float(_inner(weights, layer(given + sign * step * way))) for sign in (1, -1))
    difference = (ahead - behind) / (2 * step)
    size = float(gradient.abs().square().sum().sqrt() * way.abs().square().sum().sqrt()) + 1e-3
    assert abs(slope - difference) < 1e-3 * size, (slope, difference)
    return RIGHT


def _refused(error: ValueError) -> str:
    """That it was, if the message says what."""
    if not str(error).startswith(_NAMED):
        raise error
    return REFUSED


def _is_optimal(case: Case, x: Sequence[np.ndarray]) -> None:
    """By values alone, which cvxpy computes by numpy, and by Clarabel."""
    variables, rng = case.problem.variables(), np.random.default_rng(0)
    case.parameter.save_value(case.value)
    sign = 1.0 if isinstance(case.problem.objective, cp.Minimize) else -1.0

    def value_at(x: Sequence[np.ndarray]) -> float:
        for variable, value in zip(variables, x, strict=True):
            variable.save_value(value)
            if not _is_within(variable, value):
                return np.inf
        with np.errstate(all="ignore"):
            value: Any = case.problem.objective.value
        return sign * float(np.real(value)) if value is not None and np.isfinite(value) else np.inf

    if not case.approximate:
        least = value_at(x)
        assert np.isfinite(least)
        for _ in range(6):
            way = [direction(variable, rng) for variable in variables]
            for step in (1e-3, -1e-3):
                moved = [each + step * d * (each if case.gp else 1) for each, d in zip(x, way, strict=True)]
                assert value_at(moved) > least - 1e-8 * (1 + abs(least))
    for variable in variables:
        variable.save_value(None)  # cvxpy 1.9 fails to canonicalize sum_largest around some values
    tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    with suppress(ValueError) if case.approximate else nullcontext():  # raised after the variables are set
        cp.Problem(case.problem.objective, case.problem.constraints).solve(cp.CLARABEL, gp=case.gp, **tight)
    for variable, value in zip(variables, x, strict=True):
        best: Any = variable.value_sparse if variable.attributes["sparsity"] else variable.value
        best = best.toarray() if hasattr(best, "toarray") else np.asarray(best)
        assert np.abs(value - best).max(initial=0) < 1e-4 * (1 + np.abs(best).max(initial=0))


def _is_within(variable: cp.Variable, value: np.ndarray) -> bool:
    """Whether a value lies in the convex set that the variable is declared in."""
    if not any(variable.attributes[name] for name in _SETS):
        return True
    return bool(np.abs(np.asarray(variable.project(value)) - value).max(initial=0) < 1e-7)


def _inner(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    return torch.stack(
        [(weight.conj() * value).real.sum() for weight, value in zip(weights, values, strict=True)]
    ).sum()


# the cases


def distance(a: Any, b: Any) -> Any:
    """½ Σ |a − b|² of any shape, real or complex."""
    flat = (a - b).flatten(order="C")
    if not flat.is_complex():
        return 0.5 * cp.sum_squares(flat)
    return 0.5 * cp.sum_squares(cp.real(flat)) + 0.5 * cp.sum_squares(cp.imag(flat))


def proximal(make: Callable[[Any], Any], shape: Shape, **attributes: Any) -> Case:
    """½ |x − p|² + f(x) for a convex f, minus it for a concave one, ½ |f(x)|² for an affine one."""
    rng = np.random.default_rng(len(shape))
    x, p = cp.Variable(shape, **attributes), cp.Parameter(shape)
    value, way = rng.uniform(0.5, 1.5, shape), rng.standard_normal(shape)
    made = make(x)
    total: Any = cp.sum(made)
    unlike = make in APPROXIMATE
    if made.is_affine():
        objective = cp.Minimize(distance(x, p) + distance(made, np.full(made.shape, 0.3)))
    elif total.is_concave():
        objective = cp.Maximize(total - distance(x, p))
    else:
        objective = cp.Minimize(total + distance(x, p))
    return Case(cp.Problem(objective), p, np.asarray(value), np.asarray(way), approximate=unlike)


def geometric(make: Callable[[Any], Any], shape: Shape) -> Case:
    """f(x), or 1/f(x), + Σ x/p + p/x: a geometric program."""
    rng = np.random.default_rng(len(shape))
    x, p = cp.Variable(shape, pos=True), cp.Parameter(shape, pos=True)
    value, way = rng.uniform(0.1, 0.2, shape), 0.1 * rng.standard_normal(shape)
    made = make(x)
    whole = cp.sum(made) if made.is_log_log_convex() else cp.sum(1 / made)
    problem = cp.Problem(cp.Minimize(whole + cp.sum(x / p) + cp.sum(p / x)))
    return Case(problem, p, np.asarray(value), np.asarray(way), gp=True)


def declared(kind: str, name: str, shape: Shape) -> Case:
    """The distance of a declared variable to a parameter, or of a variable to a declared parameter."""
    rng = np.random.default_rng(len(shape))
    attributes: dict[str, Any] = {name: True}
    if name == "sparsity":
        attributes = {name: tuple(np.array([0, size - 1]) for size in shape)}
    if name == "bounds":
        attributes = {name: [0.2, 1.0]}
    leaf_kind = cp.Variable if kind == "variable" else cp.Parameter
    leaf: Any = leaf_kind(shape, **attributes)
    is_complex = leaf.is_complex()
    if kind == "variable":
        parameter = cp.Parameter(shape, complex=is_complex)
        problem = cp.Problem(cp.Minimize(distance(leaf, parameter)))
        value, way = (_numbers(shape, is_complex, rng) for _ in range(2))
        return Case(problem, parameter, value, way)
    other = cp.Variable(shape, complex=is_complex)
    value, way = (_inside(name, _numbers(shape, is_complex, rng)) for _ in range(2))
    return Case(cp.Problem(cp.Minimize(distance(other, leaf))), leaf, value, 0.1 * way)


def _numbers(shape: Shape, is_complex: bool, rng: np.random.Generator) -> np.ndarray:
    real = rng.standard_normal(shape)
    return np.asarray(real + 1j * rng.standard_normal(shape) if is_complex else real)


def _inside(name: str, value: np.ndarray) -> np.ndarray:
    """A value in a declared set, and well inside of it."""
    if name in ("nonneg", "pos", "bounds"):
        return np.full(value.shape, 0.6) if name == "bounds" else 1 + np.abs(value)
    if name in ("nonpos", "neg"):
        return -1 - np.abs(value)
    if name == "imag":
        return 1j * np.imag(value)
    if name in ("symmetric", "hermitian"):
        return value + np.conj(np.swapaxes(value, -1, -2))
    if name in ("PSD", "NSD"):
        return (value @ np.swapaxes(value, -1, -2)) * (1 if name == "PSD" else -1)
    if name == "diag":
        return value * np.eye(value.shape[-1])
    return value


def attempt(make: Callable[[], Case]) -> str:
    """The outcome of a case that cvxpy may not be able to state, which is then none."""
    try:
        case = make()
    except Exception:  # of any type: cvxpy raises all kinds
        return NONE
    return outcome(case)


# the page

ATTRIBUTES = [name for name in cp.Variable().attributes if name not in ("boolean", "integer")]


def tables() -> dict[str, dict[str, Callable[[Shape], str]]]:
    """What each row of each table does for a shape."""
    return {
        "Atoms": {name: _row(proximal, make) for name, make in ATOMS.items()},
        "Atoms of geometric programs": {name: _row(geometric, make) for name, make in GEOMETRIC.items()},
        "Declared variables": {name: _row(declared, "variable", name) for name in ATTRIBUTES},
        "Declared parameters": {name: _row(declared, "parameter", name) for name in ATTRIBUTES},
        "Constraints with their duals": constraints(),
    }


def _row(make: Callable[..., Case], *given: Any) -> Callable[[Shape], str]:
    return lambda shape: attempt(lambda: make(*given, shape))


def constraints() -> dict[str, Callable[[Shape], str]]:
    """The classes of constraints, by the problems around them."""
    rows = {_words(make): _constraint(make) for make in BY_SHAPE}
    for axis in (0, 1):
        rows[f"SOC, axis {axis}"] = _constraint(lambda shape, rng, axis=axis: second_order(axis, shape, rng))
        rows[f"PowConeND, axis {axis}"] = _constraint(lambda shape, rng, axis=axis: powers(axis, shape, rng))
    rows["PSD"] = _constraint(lambda shape, rng: semidefinite(shape, rng, symmetric=True))
    return rows


def _words(make: Callable[..., Given]) -> str:
    return {
        "inequality": "Inequality",
        "convex_inequality": "Inequality, convex",
        "equality": "Equality",
        "sign_constraints": "Zero, NonNeg, NonPos",
        "exponential": "ExpCone",
        "power": "PowCone3D",
    }[make.__name__]


def _constraint(make: Callable[..., Given]) -> Callable[[Shape], str]:
    def row(shape: Shape) -> str:
        try:
            given = make(shape, np.random.default_rng(len(shape)))
        except Exception:  # of any type: cvxpy raises all kinds
            return NONE
        try:
            is_optimal(*given)
        except ValueError as error:
            return _refused(error)
        return RIGHT

    return row


def written() -> dict[tuple[str, str], list[str]]:
    """The rows of the page's tables, by table and name."""
    found, table = {}, ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            table = line[3:]
        elif line.startswith("| `"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[table, name.strip("`")] = cells
    return found


def write() -> None:
    """Put the tables into the page, below what is written by hand."""
    by_hand = PAGE.read_text(encoding="utf-8").split("## ")[0].rstrip()
    lines = [by_hand]
    for table, rows in tables().items():
        lines += ["", f"## {table}", "", "| | " + " | ".join(f"`{shape}`" for shape in SHAPES) + " |"]
        lines += ["| --- |" + " --- |" * len(SHAPES)]
        for name, row in rows.items():
            lines.append(f"| `{name}` | " + " | ".join(row(shape) for shape in SHAPES) + " |")
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    write()
