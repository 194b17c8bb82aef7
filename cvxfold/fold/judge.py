"""What is said where x is not accurate, or no fixed point at all."""

import torch
from torch import Tensor

from cvxfold.engines.outcome import Status
from cvxfold.errors import ConvergenceWarning, FixedPointError
from cvxfold.fold.iterate import Iterated
from cvxfold.fold.options import FoldSettings
from cvxfold.layer.complaints import complain_of_forward
from cvxfold.layer.said import Said
from cvxfold.report.report import FORWARD, Report

_MANY = 20


def judge_forward(
    report: Report, tol: float, settings: FoldSettings, found: Iterated | None, said: Said
) -> None:
    """Raise where the residual is above the limit, and complain where it is above the tolerance.

    Args:
        report: of the pass, to be added to.
        tol: on the residual ‖F(x) − x‖ / (1 + ‖x‖).
        settings: of the iteration.
        found: how it ended; None where a solver found x. said: what was warned of.

    Raises:
        FixedPointError: no fixed point of the update. ConvergenceError: as the settings say.
    """
    residual = report.forward.residual
    missed = (~(residual <= tol)).nonzero().squeeze(-1)
    if found is not None:
        _say_unstable(report, found, settings, said)
    if not len(missed):
        return
    worst = f"‖F(x) − x‖ / (1 + ‖x‖) is up to {float(residual[missed].nan_to_num(torch.inf).amax()):.1e}"
    far = ~(residual <= settings.limit)
    if found is None:
        if bool(far.any()):
            raise FixedPointError(
                "update: what the solver returned is no fixed point of it for "
                f"{instances(_rows(far))}: "
                f"{worst}, above limit={settings.limit:.1e}; does the update belong to the solver's problem, "
                "with x and parameters in the same order?"
            )
        remedy = "solve more accurately"
    else:
        _check_iterated(found, far, worst, settings)
        remedy = _remedies(found.stopped[missed], settings, "a smaller step or another start")
    text = f"{instances(missed)} did not reach the tolerance {tol:.1e} ({worst}); {remedy}, or raise tol"
    complain_of_forward({str(Status.UNCONVERGED): text}, settings.on_unconverged, report, said)


def _check_iterated(found: Iterated, far: Tensor, worst: str, settings: FoldSettings) -> None:
    """Raise where an iteration came to nothing."""
    adrift = found.adrift > settings.limit
    rows = _rows(far | adrift)
    if not len(rows):
        return
    why = f"{worst}, above limit={settings.limit:.1e}"
    if bool(adrift.any()):
        why = f"‖F(x) − x‖ is no smaller than at the start ({worst}), so x moves away, or around, for ever"
    remedy = _remedies(found.stopped[rows], settings, "a smaller step, another start, or a solver")
    raise FixedPointError(f"update: iterating it did not converge for {instances(rows)}: {why}; {remedy}")


def _remedies(stopped: Tensor, settings: FoldSettings, others: str) -> str:
    """What would help instances of which some may have stopped by themselves, ``(b,)``."""
    plain = "acceleration=0 (plain steps), " if settings.acceleration else ""
    own = f"use {plain}{others}" if bool(stopped.any()) else ""
    more = ""
    if not bool(stopped.all()):
        more = "raise max_iters or time_limit" + (
            "" if own or not plain else ", try acceleration=0 (plain steps)"
        )
    return " and ".join(filter(None, (own, more)))


def _say_unstable(report: Report, found: Iterated, settings: FoldSettings, said: Said) -> None:
    """Say where acceleration found a fixed point that plain steps would not stay at."""
    rows = _rows(found.growth > 0)
    if not len(rows):
        return
    text = (
        f"{instances(rows)} are at a fixed point that the iteration itself leaves: ρ(Φ) ≈ "
        f"{float(found.growth.amax()):.3g}; its gradient is that of the equation x = F(x). If only what the "
        "iteration tends to is meant, use a smaller step or acceleration=0 (plain steps)"
    )
    report.set_complaints(FORWARD, {"unstable": text})
    if settings.on_unconverged != "ignore":
        said.once(f"{FORWARD}: unstable", f"{FORWARD}: {text}", ConvergenceWarning)


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(-1)


def check_finite(u: Tensor, complaint: str) -> None:
    """Raise a ValueError unless all of ``(B, m)`` is finite."""
    bad = (~u.isfinite().all(-1)).nonzero().squeeze(-1)
    if len(bad):
        raise ValueError(f"{complaint} for {instances(bad)}")


def instances(rows: Tensor) -> str:
    """The instances ``rows`` ``(b,)`` in words."""
    shown = ", ".join(map(str, rows[:_MANY].tolist()))
    return f"instances [{shown}{', …' if len(rows) > _MANY else ''}]"
