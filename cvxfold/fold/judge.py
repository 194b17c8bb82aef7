"""What is said where x is not accurate, or no fixed point at all."""

import torch
from torch import Tensor

from cvxfold.engines.outcome import Status
from cvxfold.errors import FixedPointError
from cvxfold.fold.options import FoldSettings
from cvxfold.layer.complaints import complain_of_forward
from cvxfold.layer.said import Said
from cvxfold.report.report import Report

_MANY = 20


def judge_forward(report: Report, tol: float, settings: FoldSettings, solver: bool, said: Said) -> None:
    """Raise where the residual is above the limit, and complain where it is above the tolerance.

    Args:
        report: of the pass, to be added to.
        tol: on the residual ‖F(x) − x‖ / (1 + ‖x‖).
        settings: of the iteration.
        solver: whether one found x. said: what was warned of.

    Raises:
        FixedPointError: no fixed point of the update. ConvergenceError: as the settings say.
    """
    residual = report.forward.residual
    missed = (~(residual <= tol)).nonzero().squeeze(-1)
    if not len(missed):
        return
    worst = f"‖F(x) − x‖ / (1 + ‖x‖) is up to {float(residual[missed].nan_to_num(torch.inf).amax()):.1e}"
    far = (~(residual <= settings.limit)).nonzero().squeeze(-1)
    if len(far) and solver:
        raise FixedPointError(
            f"update: what the solver returned is no fixed point of it for {instances(far)}: {worst}, above "
            f"limit={settings.limit:.1e}; does the update belong to the solver's problem, with x and "
            "parameters in the same order?"
        )
    if len(far):
        raise FixedPointError(
            f"update: iterating it did not converge for {instances(far)}: {worst}, above "
            f"limit={settings.limit:.1e}; use a smaller step, more max_iters, another start, or "
            "a solver"
        )
    remedy = "solve more accurately" if solver else "raise max_iters or time_limit"
    text = f"{instances(missed)} did not reach the tolerance {tol:.1e} ({worst}); {remedy}, or raise tol"
    complain_of_forward({str(Status.UNCONVERGED): text}, settings.on_unconverged, report, said)


def check_finite(u: Tensor, complaint: str) -> None:
    """Raise a ValueError unless all of ``(B, m)`` is finite."""
    bad = (~u.isfinite().all(-1)).nonzero().squeeze(-1)
    if len(bad):
        raise ValueError(f"{complaint} for {instances(bad)}")


def instances(rows: Tensor) -> str:
    """The instances ``rows`` ``(b,)`` in words."""
    shown = ", ".join(map(str, rows[:_MANY].tolist()))
    return f"instances [{shown}{', …' if len(rows) > _MANY else ''}]"
