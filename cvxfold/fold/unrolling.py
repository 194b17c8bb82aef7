"""Unrolling a user's iteration: the baseline that folding is measured against, and second derivatives."""

import time
from typing import Any

import torch
from torch import Tensor

from cvxfold.fold.adjoint import Backward
from cvxfold.fold.parameters import wanting
from cvxfold.fold.tape import UpdateLinearization
from cvxfold.methods import AdjointSettings, Unrolled, solve_adjoint
from cvxfold.methods.unrolled import Descent, OnTape, Tape, unroll


def unrolled_from(first: Tensor, method: Unrolled, backward: Backward) -> Any:
    """Apply the update K times on autograd's tape.

    Args:
        first: the first state, ``(B, m)``.
        method: K, and how.
        backward: of the call, which reports when the gradient has gone back.

    Returns:
        x after the iterations, laid out as x is.
    """
    place, layout = backward.place, backward.tape.layout

    def step(u: Tensor) -> Tensor:
        return layout.image(place.update, u, place.params)

    @torch.no_grad()
    def ended(descent: Descent) -> None:
        began = time.perf_counter() - descent.seconds
        onward = OnTape(descent.w, descent.history, str(method))
        settings = AdjointSettings(backward.settings.backward_tolerance(layout.dtype))
        system = solve_adjoint(onward, UpdateLinearization(backward.tape), descent.u_bar, settings)
        backward.record(descent.u_bar, system, began)

    with torch.no_grad():
        for _ in range(method.untracked):
            first = step(first)
    tape = Tape(method.iterations, ended)
    u = tape.begin(first.detach(), [leaf for _, leaf in wanting(place.params)])
    return layout.tree(layout.unpacked(unroll(step, u, method, tape)))
