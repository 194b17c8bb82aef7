"""Right, flagged or silently wrong: the judgement on the answer to one instance.

Errors of x are measured at the natural scale (C x̂ against x, relative to ‖x‖), since that is the scale on
which all variables have the same size; errors of a gradient in the parameters as they were given, all
together, relative to the norm of the true gradient. Where the solution is not known to be unique x̂ is right
if it is feasible and as good as the known one, relative to the size of the terms.

A flag is a status other than "solved", a verdict other than "converged", or an error estimate that owns up to
the error. What is wrong by more than 1e-5 without a flag is silently wrong, and so is a false certificate.
"""

from dataclasses import dataclass, replace

import numpy as np

from cvxfold.studies.fuzz.cones import Array, Wide, complementary, cones_of, project_product
from cvxfold.studies.fuzz.gradients import Gradient, of_adjoint
from cvxfold.studies.fuzz.problem import Slot
from cvxfold.studies.fuzz.programs import Ending, RandomProgram
from cvxfold.studies.fuzz.reference import Truth, at_the_data, examine
from cvxfold.studies.fuzz.structure import RandomStructure

WRONG = 1e-5
WELL_FORWARD, WELL_BACKWARD = 1e-8, 1e-6
RESULTS = ("solved", "certified", "flagged", "silently wrong", "crashed")


@dataclass(frozen=True)
class LayerAnswer:
    """What the layer said of one instance.

    Args:
        status: of the forward pass. verdict: on the gradient.
        estimate: of the gradient's relative error; NaN where there is none.
        x: the solution, ``(n,)``.
        gradient: in the data as they were given.
    """

    status: str
    verdict: str
    estimate: float
    x: Array
    gradient: Gradient


@dataclass(frozen=True)
class Judgement:
    """The judgement on one instance.

    Args:
        seed, structure, instance: what reproduces it.
        kind: of the instance. truth: "nondegenerate", "degenerate", or its ending.
        result: one of :data:`RESULTS`. what: in words.
        forward, backward: relative errors of the solution and the gradient; NaN where not measured.
        estimate: of the latter, by the layer.
        well: whether solution and gradient are accurate.
    """

    seed: int
    structure: int
    instance: int
    kind: str
    truth: str
    result: str
    what: str
    forward: float = np.nan
    backward: float = np.nan
    estimate: float = np.nan
    well: bool = False


def judge(
    structure: RandomStructure, number: int, instance: RandomProgram, slots: list[Slot], answer: LayerAnswer
) -> Judgement:
    """The outcome of instance ``number``."""
    names = structure.seed, structure.number, number, instance.kind
    if instance.ending is not Ending.SOLUTION:
        return Judgement(*names, instance.ending.value, *_without_solution(instance, answer))
    truth = examine(instance.P, instance.A, structure.dims, instance.u, instance.weight)
    if truth.nondegenerate:
        instance = at_its_data(structure, instance)
        truth = examine(instance.P, instance.A, structure.dims, instance.u, instance.weight)
    name = "nondegenerate" if truth.nondegenerate else "degenerate"
    if answer.status == "unconverged":
        return Judgement(*names, name, "flagged", "unconverged")
    if answer.status != "solved":
        return Judgement(*names, name, "silently wrong", f"called {answer.status}")
    if truth.nondegenerate:
        forward = _distance(instance, answer.x)
    else:
        forward = _suboptimality(structure, instance, answer.x)
    backward = _gradient_error(structure, instance, slots, truth, answer.gradient)
    numbers = forward, backward, answer.estimate
    if not forward <= WRONG:
        return Judgement(*names, name, "silently wrong", f"solution off by {forward:.1e}", *numbers)
    right = backward <= WRONG
    well = forward <= WELL_FORWARD and backward <= WELL_BACKWARD
    if answer.verdict != "converged":
        return Judgement(*names, name, "flagged", f"gradient {answer.verdict}", *numbers, well)
    if right:
        return Judgement(*names, name, "solved", "", *numbers, well)
    if answer.estimate >= backward:
        return Judgement(*names, name, "flagged", "gradient's error is told", *numbers)
    if truth.differentiable:
        what = f"gradient off by {backward:.1e}, estimated {answer.estimate:.1e}"
    else:
        what = "gradient where there is none, called converged"
    return Judgement(*names, name, "silently wrong", what, *numbers)


def at_its_data(structure: RandomStructure, instance: RandomProgram) -> RandomProgram:
    """The instance with the solution of the data as they are, not as they were meant, all in long double."""
    L, A, q, b = (part.astype(Wide) for part in (instance.L, instance.A, instance.q, instance.b))
    x, u = at_the_data(structure.dims, (L, A, q, b), instance.x, instance.u)
    return replace(instance, L=L, A=A, q=q, b=b, x=x, u=u)


def _without_solution(instance: RandomProgram, answer: LayerAnswer) -> tuple[str, str]:
    """Result and words."""
    right = {
        Ending.INFEASIBLE: ("infeasible", *(["unbounded"] if instance.twofold else [])),
        Ending.UNBOUNDED: ("unbounded",),
        Ending.BAD_VALUE: ("invalid",),
    }[instance.ending]
    if answer.status == "unconverged":
        return "flagged", "unconverged"
    if answer.status not in right:
        return "silently wrong", f"called {answer.status}"
    if np.isfinite(answer.x).any():
        return "silently wrong", "a solution that is not NaN"
    if answer.gradient.norm != 0:
        return "silently wrong", f"a gradient of norm {answer.gradient.norm:.1e} in place of zero"
    return "certified", ""


def _distance(instance: RandomProgram, x: Array) -> float:
    """‖C x̂ − x‖/‖x‖."""
    off = instance.scaling.columns * x - instance.x
    return float(np.linalg.norm(off) / np.linalg.norm(instance.x))


def _suboptimality(structure: RandomStructure, instance: RandomProgram, x: Array) -> float:
    """How far x̂ is from feasible, and its objective from the optimum; the larger one, relative."""
    x = instance.scaling.columns * x
    s, Ax = instance.b - instance.A @ x, instance.A @ x
    cones = cones_of(structure.dims)
    terms = np.linalg.norm(instance.b) + np.linalg.norm(Ax)
    outside = np.linalg.norm(project_product(cones, s) - s) / max(terms, 1e-300) if structure.m else 0.0
    _, y = complementary(cones, instance.u)
    curve = [0.5 * float(np.sum((instance.L @ z) ** 2)) for z in (x, instance.x)]
    line = [float(instance.q @ z) for z in (x, instance.x)]
    size = sum(curve) + sum(float(np.abs(instance.q) @ np.abs(z)) for z in (x, instance.x))
    size += float(np.linalg.norm(y) * terms)
    gap = abs(curve[0] + line[0] - curve[1] - line[1]) / max(size, 1e-300)
    return float(max(outside, gap)) if np.isfinite(x).all() else np.inf


def _gradient_error(
    structure: RandomStructure, instance: RandomProgram, slots: list[Slot], truth: Truth, given: Gradient
) -> float:
    """The largest relative error over all sides of a kink; infinite where no gradient is right."""
    if not truth.differentiable or not np.isfinite(given.norm):
        return np.inf
    natural, worst = given.natural(instance), 0.0
    for side in truth.sides:
        right = of_adjoint(structure, instance, side, slots).consistent(side.null).given(instance)
        found = natural.consistent(side.null).given(instance)
        worst = max(worst, (found - right).norm / max(right.norm, 1e-300))
    return worst
