"""The finish: Newton steps from an iterate of F to machine precision, safeguarded per instance."""

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.residuals import residuals
from cvxfold.engines.tensors.splitting import Splitting

_FLOOR = 1e-14  # nothing to gain below this relative residual
POLISHED = 1e-11  # at a relative residual below this a step that does not halve it is the last
_PATIENCE = 2  # steps without progress before an instance is given up
_DIVERGED = 1e3


def newton_steps(
    splitting: Splitting,
    scaling: Scaling,
    u: Tensor,
    settings: ForwardSettings,
    max_steps: int,
    deadline: Deadline,
) -> tuple[Tensor, Tensor]:
    """Newton steps on g(u) = 0 for each instance, as long as they help.

    Full steps, without a line search: near a solution they converge superlinearly, and away from one the
    caller has better means. The best state met is returned, so the finish never makes an instance worse.

    Args:
        splitting: the operator, for the instances of ``u``.
        scaling: of its program.
        u: states, ``(B, m)``.
        settings: tolerances.
        max_steps: at most.
        deadline: of the pass.

    Returns:
        The best states ``(B, m)`` and the steps taken ``(B,)``.
    """
    best, best_error = u.clone(), u.new_full((u.shape[0],), torch.inf)
    taken = torch.zeros(u.shape[0], dtype=torch.long, device=u.device)
    active = torch.arange(u.shape[0], device=u.device)
    stalls = torch.zeros_like(taken)
    previous = best_error.clone()
    for step in range(max_steps + 1):
        point = splitting.evaluate(u)
        residual = residuals(splitting.program, scaling, point.x, point.s, point.y)
        error = residual.worst()
        better = error < best_error[active]
        best[active[better]] = u[better]
        best_error[active[better]] = error[better]
        good = residual.within(settings.eps_abs, settings.eps_rel)
        g = point.g
        halved = error < 0.5 * previous
        stalls[active] = torch.where(halved, 0, stalls[active] + 1)
        enough = good & ~halved & ((error <= POLISHED) | (stalls[active] >= _PATIENCE))
        lost = ~(error < _DIVERGED * best_error[active])
        done = (error <= _FLOOR) | enough | lost
        if step >= _PATIENCE:
            done |= ~good & ~halved & (error > best_error[active])
        if step == max_steps or bool(done.all()) or deadline.passed:
            break
        if bool(done.any()):
            keep = (~done).nonzero().squeeze(-1)
            active, u, g, error = active[keep], u[keep], g[keep], error[keep]
            splitting, scaling = splitting.take(keep), scaling.take(keep)
        u = u + FactoredJacobian.at(splitting, u).inverse(g)
        taken[active] += 1
        previous = error
    return best, taken
