"""Where an unrolled iteration begins from nothing, and what it comes to as an answer like any other."""

import torch
from torch import Tensor

from cvxfold.engines.outcome import SOLVED, UNCONVERGED
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.batch import Settled
from cvxfold.engines.tensors.penalty import first_penalty
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import residuals
from cvxfold.engines.tensors.solve import Found
from cvxfold.engines.tensors.splitting import Splitting
from cvxfold.methods.unrolled import Unrolled


def cold_operator(program: ConeProgram, settings: ForwardSettings) -> Splitting:
    """F as a cold start finds it: nothing is known of the instances but their data."""
    given = settings.penalty
    penalty = first_penalty(program) if given is None else program.q.new_full((1,), given)
    return Splitting(program, penalty, settings.relaxation)


def judged(
    splitting: Splitting, scaling: Scaling, u: Tensor, settings: ForwardSettings, method: Unrolled
) -> Found:
    """The last iterate ``u`` ``(B, m')``, judged like any other answer."""
    point = splitting.evaluate(u)
    residual = residuals(splitting.program, scaling, point.x, point.s, point.y)
    settled = Settled.nothing(splitting)
    number = residual.largest(settings.eps_abs, settings.eps_rel)
    settled.status = torch.where(number <= settings.eps, SOLVED, UNCONVERGED)
    settled.iterations += method.untracked + method.iterations
    return Found(splitting, scaling, point, settled, residual, number, None)
