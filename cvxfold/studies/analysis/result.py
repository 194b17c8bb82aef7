"""What an analysis found: numbers by instance, a table, a plot, a dictionary."""

import math
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

import torch
from rich.console import Console, Group
from torch import Tensor

from cvxfold.gradient.verdict import Verdict
from cvxfold.studies.analysis.cost import Cost
from cvxfold.studies.analysis.plot import draw
from cvxfold.studies.analysis.show import Shown, count

_CLEARLY = 2.0  # short runs on a busy machine tell smaller factors badly
_FINEST, _COARSEST = 1e-14, 1e-3  # forward tolerances that can be reached, and that are recommended
_WIDTH = 80  # of the text
_NOTHING_MOVES = (
    "all gradients are zero to rounding, so nothing is learned here: the solutions do not move with the "
    "parameters, as vertices do not (documentation: 'Training that goes wrong', section 'Flat gradients')"
)

LossOrigin = Literal["given", "last", "random"]
_LOSSES: dict[LossOrigin, str] = {
    "given": "the loss that was given",
    "last": "the loss of the last backward pass",
    "random": "random losses",
}


@dataclass(frozen=True)
class Forecast:
    """What one method will take to the wanted accuracy.

    Args:
        method: as ``backward=`` takes it.
        iterations: by instance, ``(B,)``; infinite where it does not get there. For "unrolled" the depth of
            unrolling from the solution.
        cost: seconds and bytes by iterations, on the device of the analysis; None if not measured.
    """

    method: str
    iterations: Tensor
    cost: Cost | None = None

    @property
    def most(self) -> float:
        """The iterations of the slowest instance."""
        return float(self.iterations.amax())

    def seconds(self, iterations: float | None = None) -> float:
        """Wall time of the backward pass of the batch, but for the parameters' own map.

        For "unrolled" with that of putting the iterations on the tape. Infinite where it does not get there.

        Args:
            iterations: those of the slowest instance unless given.
        """
        return math.nan if self.cost is None else self.cost.seconds.at(_given(iterations, self.most))

    def bytes(self, iterations: float | None = None) -> float:
        """Bytes of tensors at the peak of the same, above those before; for "unrolled" of the whole call."""
        return math.nan if self.cost is None else self.cost.bytes.at(_given(iterations, self.most))


@dataclass(frozen=True)
class Analysis:
    """How the backward pass of a batch converges. Tensors have one entry per instance, ``(B,)``.

    Args:
        rows: m of the reduced program. variables: n of it. device: of the analysis.
        tol: the accuracy that the forecasts are for.
        loss: which one they are for: "given", the "last" that was differentiated, or "random" ones.
        penalty: ρ; NaN where there is none. relaxation: α of the operator; 1 of a folded iteration.
        spectral_radius: ρ(Φ) on the subspace that the loss gradient reaches.
        eigenvalues: the leading ones there, complex, ``(B, k)``; NaN where there are fewer.
        exact: whether they are exact, or Ritz values of a Krylov space that was cut off.
        forward_rate: of ‖uₖ₊₁ − uₖ‖ from a cold start, measured.
        backward_rate: of the residual of LFPI, measured over the last half of its history.
        backward_history: that history, ``(K, B)``, down to rounding.
        margin: distance of u to the nearest kink of the projection, relative to the largest of u, A x, b and
            what q moves A x by, in the scaling of the iteration; infinite where no cone has a kink.
        smallest_singular_value: of I − Φ.
        forward_error: the relative error of the gradient that the forward residual alone causes.
        verdict: on the gradient that ``backward="auto"`` gives.
        flat: whether that is zero to rounding while the loss looks at the solution.
        forward_tol: the relative forward residual that costs the gradient no more than ``tol``.
        forecasts: for unrolling, LFPI, Anderson acceleration, GMRES, BiCGSTAB and the default method.
    """

    rows: int
    variables: int
    device: str
    tol: float
    loss: LossOrigin
    penalty: Tensor
    relaxation: float
    spectral_radius: Tensor
    eigenvalues: Tensor
    exact: Tensor
    forward_rate: Tensor
    backward_rate: Tensor
    backward_history: Tensor
    margin: Tensor
    smallest_singular_value: Tensor
    forward_error: Tensor
    verdict: list[Verdict]
    flat: Tensor
    forward_tol: Tensor
    forecasts: list[Forecast]

    def __getitem__(self, method: str) -> Forecast:
        """The forecast for a method.

        Raises:
            KeyError: there is none; the message lists those there are.
        """
        for forecast in self.forecasts:
            if forecast.method == method:
                return forecast
        raise KeyError(f"{method!r}: there are forecasts for {[one.method for one in self.forecasts]}")

    @property
    def unroll_depth(self) -> float:
        """How deep to unroll from the solution for the wanted accuracy; infinite where no depth serves."""
        return self["unrolled"].most

    @property
    def recommended_tol(self) -> float:
        """The forward tolerance, without ``refine``, that serves all gradients that have a derivative.

        NaN where there is none, or none that the arithmetic can reach.
        """
        fine = torch.tensor([one is not Verdict.DEGENERATE for one in self.verdict], device="cpu")
        found = self.forward_tol.cpu()[fine]
        finest = float(found.amin()) if len(found) else math.nan
        return min(finest, _COARSEST) if finest >= _FINEST else math.nan

    @property
    def recommended_method(self) -> str:
        """The default, unless another method that gets there is clearly faster."""
        reach = [one for one in self.forecasts if math.isfinite(one.most) and one.cost is not None]
        if not reach:
            return "auto"
        best = min(reach, key=lambda one: one.seconds())
        usual = self["auto"]
        return best.method if usual not in reach or best.seconds() < usual.seconds() / _CLEARLY else "auto"

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain numbers, strings and lists, but for the history."""
        numbers = (
            "penalty", "spectral_radius", "forward_rate", "backward_rate", "margin",
            "smallest_singular_value", "forward_error", "forward_tol",
        )  # fmt: skip
        plain: dict[str, Any] = {name: _plain(getattr(self, name).tolist()) for name in numbers}
        plain |= {
            name: getattr(self, name) for name in ("rows", "variables", "device", "tol", "loss", "relaxation")
        }
        plain["exact"], plain["flat"] = self.exact.tolist(), self.flat.tolist()
        plain["eigenvalues"] = [
            [[value.real, value.imag] for value in row if value == value] for row in self.eigenvalues.tolist()
        ]
        plain["verdict"] = [str(one) for one in self.verdict]
        plain["forecasts"] = {
            one.method: {
                "iterations": _plain(one.iterations.tolist()),
                "seconds": _plain(one.seconds()),
                "bytes": _plain(one.bytes()),
            }
            for one in self.forecasts
        }
        plain["recommended"] = {
            "method": self.recommended_method,
            "tol": _plain(self.recommended_tol),
            "unroll_depth": _plain(self.unroll_depth),
        }
        return plain

    def plot(self, path: Any = None) -> Any:
        """Draw the error of the backward pass against iterations, with the slope that ρ(Φ) predicts.

        Args:
            path: where to save it, if anywhere.

        Returns:
            The matplotlib figure.

        Raises:
            ModuleNotFoundError: matplotlib is missing.
        """
        return draw(self.backward_history, self.spectral_radius, self.tol, path)

    def _findings(self) -> Shown:
        """What there is to show."""
        counted = Counter(self.verdict)
        figures = {
            "spectral radius ρ(Φ)": (self.spectral_radius, False),
            "forward rate, measured": (self.forward_rate, False),
            "backward rate, measured": (self.backward_rate, False),
            "margin to kinks": (self.margin, True),
            "smallest singular value of I − Φ": (self.smallest_singular_value, True),
            "forward residual's share of the error": (self.forward_error, False),
        }
        forecasts = [
            (one.method, float(one.iterations.median()), one.most, one.seconds(), one.bytes())
            for one in self.forecasts
        ]
        return Shown(
            verdicts=[(kind, counted[kind]) for kind in Verdict if counted[kind]],
            flat=int(self.flat.sum()),
            place=f"{self.rows} rows, {self.device}",
            convergence=[(name, *_spread(*each)) for name, each in figures.items()],
            purpose=f"forecast to {self.tol:.2g} for {_LOSSES[self.loss]}",
            forecasts=forecasts,
            advice=self._advice(),
        )

    def _advice(self) -> str:
        """What is recommended, in words."""
        depth = (
            f"unrolling needs a depth of {count(self.unroll_depth)} from the solution"
            if math.isfinite(self.unroll_depth)
            else "no depth of unrolling serves every instance"
        )
        choice = f"backward={self.recommended_method!r}"
        if self.recommended_method != "auto":
            choice += f", backward_tol={self.tol:.2g}"
        if not math.isnan(self.recommended_tol):
            choice += f", tol {self.recommended_tol:.0e} without refine"
        if len(self.flat) and bool(self.flat.all()):
            depth += f"; {_NOTHING_MOVES}"
        return f"recommended: {choice}; {depth}"

    def __rich__(self) -> Group:
        return self._findings().as_rich()

    def _repr_html_(self) -> str:
        return self._findings().as_html()

    def __str__(self) -> str:
        out = Console(file=StringIO(), width=_WIDTH, force_jupyter=False)
        out.print(self)
        return out.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _given(iterations: float | None, otherwise: float) -> float:
    return otherwise if iterations is None else iterations


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: None, and "inf"."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _spread(values: Tensor, low: bool) -> tuple[float, float]:
    """The median and the worst of those that are known; the lowest is the worst if ``low``."""
    known = values[~values.isnan()]
    worst = float(known.amin() if low else known.amax()) if len(known) else math.nan
    return float(values.nanmedian()), worst
