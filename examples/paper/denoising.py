"""Total-variation denoising of photographs' lines, by a learned operator: cone layers, unrolled and folded.

    minimize ½‖x − d‖² + λ‖Dx‖₁

D begins as the differences of neighbours, which makes ‖Dx‖₁ the total variation, and is trained on the
squared error between x*(d) and the signal that d is a noisy copy of, as in the experiment of Kotary,
Christopher, Dinh and Fioretto.
Signals are pieces of the lines of two photographs that scikit-learn ships, one to train and one to test on.
FDPG and ADMM are iterated to their fixed points, accelerated, and folded there; FDPG is unrolled from zero.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as PeerLayer
from experiment import Course, Experiment, Plan, gradient, start, trained
from sklearn.datasets import load_sample_image
from torch import Tensor

import cvxfold
from cvxfold.fold import GMRES, LFPI, Folded, Unrolled
from cvxfold.fold.updates import ADMM, Accelerated, DualProximalGradient
from cvxfold.torch import CvxpyLayer

NOISE, WEIGHT = 0.1, 0.1  # of grey values from 0 to 1, and λ
STEP, MOMENTUM, PENALTY = 0.2, 0.7, 1.0
DEPTH, BATCH, RATE = 100, 25, 5e-3

Layer = Callable[[Tensor, Tensor], Tensor]
"""d ``(B, n)`` and D ``(n − 1, n)`` → x* ``(B, n)``."""


def signals(picture: str, count: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pieces of the lines of a photograph, from 0 to 1, ``(count, n)``, and the same with noise."""
    grey = torch.tensor(load_sample_image(picture).mean(-1) / 255)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(grey.shape[0], (count, 1), generator=generator)
    columns = torch.randint(grey.shape[1] - n, (count, 1), generator=generator)
    clean = grey[rows, columns + torch.arange(n)]
    return clean, clean + NOISE * torch.randn(count, n, generator=generator, dtype=torch.float64)


def differences(n: int) -> Tensor:
    """The classical operator, ``(n − 1, n)``."""
    unit = torch.eye(n, dtype=torch.float64)
    return unit[1:] - unit[:-1]


def exact(d: Tensor, D: Tensor, dual: Tensor) -> Tensor:
    """x* in closed form, differentiable by autograd.

    With u = d − λ Σ sign(yᵢ)Dᵢ over the rows where Dx ≠ 0, whose dual is ±λ, and Z the other rows:
    x* is the projection of u onto {Zx = 0}.

    Args:
        dual: y of an accurate solution, ``(B, n − 1)``.
    """
    zero = (dual.abs() < WEIGHT * (1 - 1e-7)).to(d).unsqueeze(-1)
    u = d - (torch.where(zero[..., 0] > 0, 0.0, WEIGHT * dual.sign())) @ D
    Z = zero * D
    gram = Z @ Z.mT + torch.diag_embed(1 - zero[..., 0])
    return u - (Z.mT @ torch.linalg.solve(gram, Z @ u.unsqueeze(-1))).squeeze(-1)


def fast_dual() -> tuple[Accelerated, DualProximalGradient]:
    """FDPG, and the step that it accelerates."""
    plain = DualProximalGradient(
        lambda z, d, D: z + d,
        lambda d, D: D,
        lambda z, s, d, D: z.sign() * (z.abs() - WEIGHT * s).clamp_min(0),
        STEP,
    )
    return Accelerated(plain, MOMENTUM), plain


def splitting() -> ADMM:
    """ADMM on the dual: minimize ½‖Dᵀy‖² − dᵀDᵀy, |y| ≤ λ; its first variable is y."""

    def program(d: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        unit = torch.eye(len(D), dtype=D.dtype)
        bound = torch.full((len(D),), WEIGHT, dtype=D.dtype)
        return D @ D.mT, -d @ D.mT, unit, -bound, bound

    return ADMM(program, PENALTY)


@dataclass(frozen=True)
class Primal:
    """x* by way of a folded iteration on the dual, of which ``primal`` makes it."""

    folded: Folded
    primal: Callable[[Any, Tensor, Tensor], Tensor]

    def __call__(self, d: Tensor, D: Tensor) -> Tensor:
        """x*, ``(B, n)``."""
        return self.primal(self.folded(d, D), d, D)

    @property
    def report(self) -> Any:
        """Of the iteration."""
        return self.folded.report


def layers(n: int) -> dict[str, Layer]:
    """The ways from a noisy signal to a clean one."""
    x, d, D = cp.Variable(n), cp.Parameter(n), cp.Parameter((n - 1, n))
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - d) + WEIGHT * cp.norm1(D @ x)))
    own, peer = CvxpyLayer(program, [d, D], [x], on_unconverged="ignore"), PeerLayer(program, [d, D], [x])
    (fdpg, plain), admm = fast_dual(), splitting()
    common: Any = {"batched": True, "on_unconverged": "ignore", "probe": False, "tol": 1e-10}

    def zeros(d: Tensor, D: Tensor) -> Tensor:
        return d.new_zeros(len(d), len(D))

    def folded(method: Any) -> Layer:
        start = cvxfold.fold(fdpg, start=lambda d, D: (zeros(d, D),) * 2, backward=method, **common)
        return Primal(start, lambda state, d, D: plain.primal(state[0], d, D))

    by_admm = cvxfold.fold(admm, start=zeros, backward=GMRES(), **common)
    return {
        "cvxpylayers": lambda d, D: peer(d, D)[0],
        "cvxfold layer": lambda d, D: own(d, D)[0],
        f"unrolled FDPG, {DEPTH} from 0": folded(Unrolled(DEPTH, start="cold")),
        "folded FDPG, LFPI": folded(LFPI()),
        "folded FDPG, GMRES": folded(GMRES()),
        "folded ADMM, GMRES": Primal(by_admm, lambda state, d, D: d - admm.primal(state, d, D) @ D),
    }


def exact_gradient(d: Tensor, clean: Tensor, D: Tensor) -> Tensor:
    """Of the mean squared error with respect to D, by autograd through the closed form."""
    fdpg, _ = fast_dual()
    zeros = d.new_zeros(len(d), len(D))
    iterated = cvxfold.fold(fdpg, start=(zeros, zeros), batched=True, tol=1e-13, on_unconverged="ignore")
    with torch.no_grad():
        dual, _ = iterated(d, D)
    D = D.detach().requires_grad_()
    return torch.autograd.grad((exact(d, D, dual) - clean).square().mean(), D)[0]


def main(argv: Sequence[str] | None = None) -> dict[str, Course]:
    """Train an operator through each contestant; returns their courses, scored by the error on the test."""
    given = start("denoising", __doc__, argv)
    n, sizes, epochs = (32, (100, 50, 50), 5) if given.quick else (100, (1000, 250, 250), 10)
    count, test_count, _ = given.scaled(sizes)
    clean, noisy = signals("china.jpg", count, n, given.seed)
    test_clean, test_noisy = signals("flower.jpg", test_count, n, given.seed + 1)
    every = layers(n)
    contestants, plan = given.among(every), Plan(count, BATCH, epochs)
    courses: dict[str, Course] = {}
    operators: dict[str, Tensor] = {}
    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "denoising", plan.steps * len(contestants)) as run:
        for name, layer in contestants.items():
            D = operators[name] = differences(n).requires_grad_()

            def loss(rows: slice, D: Tensor = D, layer: Layer = layer) -> Tensor:
                return (layer(noisy[rows], D) - clean[rows]).square().mean()

            def score(D: Tensor = D) -> float:
                with torch.no_grad():
                    found = every["cvxfold layer"](test_noisy, D)
                return float((found - test_clean).square().mean())

            courses[name] = trained(
                loss, torch.optim.Adam([D], RATE), score, plan, lambda name=name: run.advance(name)
            )
            run.keep(courses)
        D = operators.get("cvxfold layer", differences(n))
        d, x = noisy[:BATCH], clean[:BATCH]
        truth = exact_gradient(d, x, D)
        for name, layer in contestants.items():
            found, courses[name].bytes = gradient(lambda D, layer=layer: (layer(d, D) - x).square().mean(), D)
            courses[name].gradient_error = float((found - truth).norm() / truth.norm())
            courses[name].count(layer)
        run.keep(courses, {
            "error of the noisy signals": float((test_noisy - test_clean).square().mean()),
            "‖D‖": {name: float(torch.linalg.matrix_norm(D.detach(), 2)) for name, D in operators.items()},
        })  # fmt: skip
        run.compare(courses, "squared error", f"Signals of {n} pixels, squared error on the test")
    return courses


if __name__ == "__main__":
    main()
