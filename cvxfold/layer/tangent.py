"""How solutions move with the data: the tangent system, which is the adjoint system itself.

With r = −(Ṗ x + q̇ + Ȧᵀ y) and t = ḃ − Ȧ x for tangents of the data, those of the solution obey, s = Π_K(u),
y = R (s − u), D = DΠ_K(u),

    P ẋ + Aᵀ ẏ = r         A ẋ + D u̇ = t         ẏ = R (D − I) u̇.

D and R commute, so R (D − I) times the second gives (D − I) R A ẋ + D ẏ = (D − I) R t, and with the first
these are the equations of the adjoint (p, v) of loss gradients x̄ and ȳ, P p + Aᵀ v = x̄ and
(D − I) R A p + D v = (D − I) R ȳ, for x̄ = r and ȳ = t: the derivative of (x, y) by (r, t) is symmetric.
"""

from torch import Tensor

from cvxfold.layer.answer import Answer
from cvxfold.layer.said import product
from cvxfold.layer.session import Session
from cvxfold.problem.program import Program
from cvxfold.problem.values import ProgramValues


def moved(session: Session, answer: Answer, tangents: ProgramValues) -> tuple[Tensor, Tensor]:
    """Tangents of x ``(B, n)`` and y ``(B, m)``, zero for instances without a solution.

    Args:
        session: of the layer. answer: of the call, whose report has them for its backward pass.
        tangents: of the stored entries, each ``(1|B, ·)``, float64.

    Raises:
        ConvergenceError, DegenerateError: as the options say.
    """
    x, y = answer.x.nan_to_num(), answer.y.nan_to_num()
    r, t = Program(session.entries, tangents, answer.request.batch).sides(x, y)
    with product():
        data = session.differentiate(answer, r, t)
    return data.p, data.v
