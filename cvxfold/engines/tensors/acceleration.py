"""Anderson acceleration of the splitting iteration, safeguarded.

With r = F(u) − u and ΔU, ΔR the last differences of states and of their residuals,

    θ = argmin ‖r − ΔR θ‖        u ← (u − ΔU θ) + (r − ΔR θ)

and where that does not reduce ‖r‖, the plain step u ← F(u) (as Zhang, O'Donoghue and Boyd do, "Globally
convergent type-I Anderson acceleration for nonsmooth fixed-point iterations", 2020, with another test). So
‖F(u) − u‖ falls as it does without, at least; where there is no solution F(u) − u still tends to the smallest
displacement of F, and its parts to certificates.
"""

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.engines.tensors.splitting import Splitting
from cvxfold.methods.window import Window


def accelerated(splitting: Splitting, u: Tensor, applications: int, memory: int) -> Tensor:
    """Iterate from ``u`` ``(B, m)`` by that many applications of F, those of plain steps included.

    Args:
        splitting: F.
        u: the states.
        applications: of F; each instance may take plain and accelerated steps of its own.
        memory: differences that are kept.
    """
    if not u.shape[1]:
        return u
    if not is_near(u):
        return _at_their_own_pace(splitting, u, applications, memory)
    window = Window.empty(u, min(memory, u.shape[1]))
    r, left = _residual(splitting, u), applications - 1
    while left > 0:
        start, target = window.minimize(u, r)
        following = start + target
        image, left = _residual(splitting, following), left - 1
        worse = ~(image.norm(dim=-1) <= r.norm(dim=-1)).unsqueeze(-1)
        if bool(worse.any()):
            if not left:
                return torch.where(worse, u + r, following)
            plain = u + r
            following = torch.where(worse, plain, following)
            image, left = torch.where(worse, _residual(splitting, plain), image), left - 1
        window.add(following - u, image - r)
        u, r = following, image
    return u + r


def _at_their_own_pace(splitting: Splitting, u: Tensor, applications: int, memory: int) -> Tensor:
    """The same without a look: where an accelerated step is refused the next one is plain."""
    window, r = Window.empty(u, min(memory, u.shape[1])), _residual(splitting, u, rough=True)
    refused = torch.zeros(len(u), 1, dtype=torch.bool, device=u.device)
    for _ in range(applications - 1):
        start, target = window.minimize(u, r)
        following = torch.where(refused, u + r, start + target)
        image = _residual(splitting, following, rough=True)
        refused = ~refused & ~(image.norm(dim=-1, keepdim=True) <= r.norm(dim=-1, keepdim=True))
        following, image = torch.where(refused, u, following), torch.where(refused, r, image)
        window.add(following - u, image - r)  # nothing, where it was refused
        u, r = following, image
    return u + r


def _residual(splitting: Splitting, u: Tensor, rough: bool = False) -> Tensor:
    return splitting.alpha * splitting.evaluate(u, rough).g
