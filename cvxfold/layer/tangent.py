"""How solutions move with the data: the tangent system, which is the adjoint system itself.

With r = −(Ṗ x + q̇ + Ȧᵀ y) and t = ḃ − Ȧ x for tangents of the data, those of the solution obey, s = Π_K(u),
y = R (s − u), D = DΠ_K(u),

    P ẋ + Aᵀ ẏ = r         A ẋ + D u̇ = t         ẏ = R (D − I) u̇.

D and R commute, so R (D − I) times the second gives (D − I) R A ẋ + D ẏ = (D − I) R t, and with the first
these are the equations of the adjoint (p, v) of loss gradients x̄ and ȳ, P p + Aᵀ v = x̄ and
(D − I) R A p + D v = (D − I) R ȳ, for x̄ = r and ȳ = t: the derivative of (x, y) by (r, t) is symmetric.

Where P and r are zero, as in linear programs whose b moves, ẏ may be zero, and no residual is small beside
nothing. So it is computed together with a growth of y: (0, y) is the solution for r = Aᵀ y and t = 0, since
D u̇ = 0 along u̇ = −R⁻¹ y. It grows by γ y, with γ the size of t beside b and A x.
"""

import torch
from torch import Tensor

from cvxfold.layer.answer import Answer
from cvxfold.layer.said import product
from cvxfold.layer.session import Session
from cvxfold.problem.program import Program
from cvxfold.problem.values import ProgramValues


def moved(
    session: Session, answer: Answer, values: ProgramValues, tangents: ProgramValues, report: bool = True
) -> tuple[Tensor, Tensor]:
    """Tangents of x ``(B, n)`` and y ``(B, m)``, zero for instances without a solution.

    Args:
        session: of the layer. answer: of the call.
        values: the stored entries, each ``(1|B, ·)``, float64. tangents: theirs.
        report: whether the call's report is to have them for its backward pass.

    Raises:
        ConvergenceError, DegenerateError: as the options say.
    """
    x, y = answer.x.nan_to_num(), answer.y.nan_to_num()
    batch = answer.request.batch
    r, t = Program(session.entries, tangents, batch).sides(x, y)
    program = Program(session.entries, values.detached(), batch)
    b = program.right_hand_side
    Ax = program.rows(x)
    beside = torch.maximum(b.norm(dim=1), Ax.norm(dim=1))
    growth = torch.where(beside > 0, t.norm(dim=1) / beside, 0.0).unsqueeze(1)
    x_bar = r + growth * program.stationary(x, y)[1]
    with product():
        passed = session.differentiate if report else session.fold
        data = passed(answer, x_bar, t, tangent=True)
    return data.p, torch.where(answer.absent.unsqueeze(1), 0.0, data.v - growth * y)
