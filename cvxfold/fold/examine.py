"""What is known of a folded gradient beside the residual of its adjoint system.

Of an update there are only evaluations and products, so this is less than a cone program allows
(:mod:`cvxfold.gradient.diagnosis`):

- *How far x is from the fixed point*, δx = (I − Φ)⁻¹(F(x) − x): by the dense factorization, or else estimated
  as |F(x) − x| times ‖w‖/‖ū‖, a lower bound of ‖(I − Φ)⁻¹‖.
- *Kinks.* wᵀF is differentiated again at x ± ε d and θ ± ε e, d and e generic directions. What is smooth
  changes by O(ε), and that is how sensitive the gradient is to δx; a jump changes as much for a smaller ε.
- *Singular I − Φ.* What least squares leave of the adjoint system is then a null vector r of I − Φ, to be
  confirmed by a product; and an adjoint of no sane size is the same thing.

That a gradient is flat is not told: parameters may reach an update in any way, and w is all that is weighed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.trees import flattened, on_tensors
from cvxfold.fold.tape import UpdateLinearization, UpdateTape
from cvxfold.gradient.diagnosis import Diagnosis
from cvxfold.gradient.screen import UNSOLVED, ratio
from cvxfold.methods import AdjointSolution

_ASIDE = 1e-6  # relative distance at which the update is probed; more where x itself is less accurate
_BEYOND = 30  # times the relative error of x
_FARTHEST = 1e-5
_NEARER = 8  # the second probe is so many times nearer
_JUMP = 1e-4  # relative change of the gradient that may be a jump
_STAYS = 0.5  # of it is left at the second probe: a jump; what is smooth falls by the factor above
_NULL = 1e-6  # ‖(I − Φ)r‖/‖r‖ of a null vector
_LARGEST_GROWTH = 1e8  # ‖w‖/‖ū‖ beyond this means that I − Φ is singular to working precision


@dataclass(frozen=True)
class Place:
    """Where an update was differentiated: itself, its parameters, and the tape."""

    update: Callable[..., Any]
    params: tuple[Any, ...]
    tape: UpdateTape


def examined(place: Place, u_bar: Tensor, system: AdjointSolution, probe: bool) -> Diagnosis:
    """Examine the gradients of a batch.

    Args:
        place: of the tape.
        u_bar: the loss gradient on x, ``(B, m)``.
        system: the adjoint system's solution.
        probe: whether to look for kinks.
    """
    tape, w = place.tape, system.w
    phi = UpdateLinearization(tape)
    r = u_bar - (w - phi.vjp(w))
    growth = ratio(w.norm(dim=-1), u_bar.norm(dim=-1))
    left = tape.layout.packed([y.detach() for y in tape.y]) - tape.u
    size = tape.u.norm(dim=-1).clamp_min(torch.finfo(w.dtype).tiny)
    known = "factor" in vars(tape)
    offset = (phi.inverse(left).norm(dim=-1) if known else growth.clamp_min(1) * left.norm(dim=-1)) / size
    offset = (
        torch.where(left.abs().amax(-1) == 0, 0.0, offset.nan_to_num(torch.inf)) if left.shape[1] else growth
    )
    error = ratio(phi.inverse_transposed(r).norm(dim=-1), w.norm(dim=-1)) if known else system.residual
    singular = _is_singular(phi, r, system, growth)
    kinked, sensitivity = _kinks(place, w, offset) if probe else (torch.zeros_like(singular), 0 * growth)
    nan = torch.full_like(growth, torch.nan)
    return Diagnosis(
        margin=nan,
        smallest=nan.clone(),
        kinked=kinked,
        singular=singular,
        forward_error=offset * (sensitivity * growth).clamp_min(1),
        adjoint_error=error,
        strength=torch.ones_like(growth),
        gradient=w.norm(dim=-1),
        flat=torch.zeros_like(singular),
    )


def _is_singular(phi: UpdateLinearization, r: Tensor, system: AdjointSolution, growth: Tensor) -> Tensor:
    """Where I − Φ is singular in a way that the loss sees, ``(B,)``."""
    singular = growth > _LARGEST_GROWTH
    rows = (~(system.residual <= UNSOLVED) & r.isfinite().all(-1)).nonzero().squeeze(-1)
    if len(rows) and system.exact:
        some, part = phi.take(rows), r[rows]
        try:
            image = part - some.jvp(part)
        except NotImplementedError:
            return singular
        singular[rows] |= image.norm(dim=-1) <= _NULL * part.norm(dim=-1)
    return singular


def _kinks(place: Place, w: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Where the gradient jumps beside x, and by how much of itself it changes where x moves by its own size.

    Both ``(B,)``. Where the update cannot be evaluated beside x, nothing is known, and nothing said.
    """
    no, unknown = torch.zeros_like(offset, dtype=torch.bool), torch.zeros_like(offset)
    aside = (_BEYOND * offset.nan_to_num(0.0)).clamp(_ASIDE, _FARTHEST)
    try:
        change = _change(place, w, aside)
        kinked = change > _JUMP
        if bool(kinked.any()):
            nearer = _change(place, w, aside / _NEARER)
            kinked &= nearer > _STAYS * change
    except Exception:  # beside x an update need not be defined: a factorization, an infeasible inner problem
        return no, unknown
    return kinked, torch.where(kinked, 0.0, change / aside)


def _change(place: Place, w: Tensor, aside: Tensor) -> Tensor:
    """How much (∂F/∂x)ᵀw and (∂F/∂θ)ᵀw change to either side, relative to themselves and to w, ``(B,)``."""
    tape = place.tape
    theta = _wanting(place.params)
    here = tape.pulled(w, among=theta)
    steps = aside.unsqueeze(-1) * _generic(tape.u) * tape.u.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    width = float(aside.amax()) if aside.numel() else 0.0
    worst = torch.zeros_like(aside)
    for side in (1.0, -1.0):
        moved = on_tensors(lambda leaf, side=side: _moved(leaf, side * width), place.params)
        there_tape = UpdateTape(place.update, tape.layout, tape.u + side * steps, moved)
        there = there_tape.pulled(w, among=_wanting(moved))
        x_count = len(tape.x)
        packed = tape.layout.packed
        apart = (packed(there[:x_count]) - packed(here[:x_count])).norm(dim=-1)
        largest = torch.maximum(packed(here[:x_count]).norm(dim=-1), w.norm(dim=-1))
        worst = torch.maximum(worst, ratio(apart, largest))
        for a, b in zip(here[x_count:], there[x_count:], strict=True):
            worst = torch.maximum(worst, _by_instance(a, b, len(worst), tape.layout.batched))
    return worst


def _by_instance(here: Tensor, there: Tensor, batch: int, batched: bool) -> Tensor:
    """The relative change of a parameter's gradient, ``(B,)``; of all of it, ``(1,)``, where it is shared."""
    if not (batched and here.dim() and here.shape[0] == batch):
        here, there = here.unsqueeze(0), there.unsqueeze(0)
    here, there = here.detach().double().flatten(1), there.detach().double().flatten(1)
    return ratio((there - here).norm(dim=-1), torch.maximum(here.norm(dim=-1), there.norm(dim=-1)))


def _moved(leaf: Tensor, width: float) -> Tensor:
    """A tensor that wants a gradient, moved by ``width`` of its size, on its own tape.

    The direction keeps a symmetric matrix symmetric.
    """
    if not leaf.requires_grad:
        return leaf
    value = leaf.detach()
    if value.numel():
        value = value + width * (0.7 * value + 0.4 * value.abs().amax().clamp_min(1e-3))
    return value.requires_grad_()


def _wanting(params: Sequence[Any]) -> list[Tensor]:
    return [leaf for leaf in flattened(params)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]


def _generic(like: Tensor) -> Tensor:
    """A vector without a preferred direction or small entries, the same at every call, ``(B, m)``."""
    places = torch.arange(1, like.shape[-1] + 1, device=like.device, dtype=like.dtype)
    wave = torch.cos(1.3 * places.square() + 0.7 * places)
    return (torch.where(wave >= 0, 0.5, -0.5) + 0.5 * wave).expand_as(like)
