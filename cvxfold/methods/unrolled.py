"""Unrolled differentiation: backpropagation through K steps of the iteration itself.

It is the baseline that folding is measured against: plain automatic differentiation of F, nothing solved.
Started at a fixed point, K steps give exactly K steps of the linear fixed-point iteration: the gradient
that arrives at the start of the tape is (Φᵀ)ᴷ ū, which is the residual ū − (I − Φᵀ) w of that adjoint
(Kotary, Christopher, Dinh and Fioretto, arXiv 2312.17394, sections 4 and 5), and w is the sum of the
gradients at the states after it. So the tape is watched: the norms of the gradients at the states are the
residual history, and their sum is the adjoint, for nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cvxfold.checks import require_count
from cvxfold.compat.functorch import is_legacy_mapped, is_mapped
from cvxfold.methods.adjoint import AdjointSettings, Attempt
from cvxfold.methods.linearization import Linearization

UnrollStart = Literal["solution", "cold"]


@dataclass(frozen=True)
class Unrolled:
    """How to unroll.

    Args:
        iterations: K, the applications of F that are kept on the tape.
        start: "solution", the fixed point that the forward pass found (the remedy of the paper), or "cold",
            u = 0, as an unrolled solver starts; the layer then returns the last iterate.
        untracked: applications of F before those on the tape, not differentiated; from a cold start this
            truncates the backward pass to the last K iterations.
        checkpoint_every: keep only every so many-th state on the tape and compute the others again in the
            backward pass: less memory for one more forward pass. √K is a good choice. None keeps all.

    Raises:
        ValueError: a number out of range or an unknown start.
    """

    iterations: int = 100
    start: UnrollStart = "solution"
    untracked: int = 0
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        if self.start not in get_args(UnrollStart):
            raise ValueError(f"start: expected one of {list(get_args(UnrollStart))}, got {self.start!r}")
        require_count("iterations", self.iterations)
        require_count("untracked", self.untracked, 0)
        if self.checkpoint_every is not None:
            require_count("checkpoint_every", self.checkpoint_every)

    def __str__(self) -> str:
        origin = "the solution" if self.start == "solution" else "a cold start"
        before = f" after {self.untracked} untracked" if self.untracked else ""
        return f"unrolled, {self.iterations} iterations{before} from {origin}"


@dataclass(frozen=True)
class Descent:
    """What a backward pass through the tape saw.

    Args:
        u_bar: the gradient at the last state, ``(B, m)``.
        w: the adjoint that this amounts to, ``(B, m)``.
        history: ‖(Φᵀ)ᵏ ū‖/‖ū‖ for k = 1, …, K, ``(K, B)``.
        seconds: wall time of the pass.
    """

    u_bar: Tensor
    w: Tensor
    history: Tensor
    seconds: float


@dataclass(frozen=True)
class OnTape:
    """The adjoint that a tape amounts to, as a method, so that its residual is measured like any other's.

    From the solution that is what arrives at the first state. From a cold start it also has in it that the
    tape's iterations were not all at the last one's derivative.
    """

    w: Tensor
    history: Tensor
    name: str
    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """The adjoint as it is."""
        yes = torch.ones(len(rhs), dtype=torch.bool, device=rhs.device)
        return Attempt(self.w, self.history, self.name, yes)


class Tape:
    """Watches gradients on their way back through the states, those of a second derivative as well.

    Args:
        iterations: K.
        ended: called with what was seen when a gradient has arrived at the first state.
    """

    def __init__(self, iterations: int, ended: Callable[[Descent], None]) -> None:
        self._norms: list[Tensor | None] = [None] * (iterations + 1)
        self._u_bar: Tensor | None = None
        self._w: Tensor | None = None
        self._ended = ended
        self._started = 0.0

    def begin(self, u: Tensor, data: Sequence[Tensor]) -> Tensor:
        """The first state; it hangs on the ``data``, so that the gradient arrives here whatever is asked."""
        return _First.apply(u, self, *data)

    def watch(self, u: Tensor, number: int) -> None:
        """Note the gradient that will arrive at state ``number``."""
        if u.requires_grad:
            u.register_hook(lambda gradient: self.note(gradient, number))

    def note(self, gradient: Tensor | None, number: int) -> None:
        """Take in a gradient ``(B, m)``; the last state's comes first, the first one's last."""
        if gradient is None or is_mapped(gradient) or is_legacy_mapped(gradient):
            return
        last = len(self._norms) - 1
        if number == last:
            self._norms, self._w, self._u_bar = [None] * (last + 1), None, gradient.detach()
            self._started = time.perf_counter()
        gradient = gradient.detach()
        if number > 0 and self._norms[number] is None:
            self._w = gradient.clone() if self._w is None else self._w.add_(gradient)
        self._norms[number] = gradient.norm(dim=-1)
        if number == 0:
            self._end()

    def _end(self) -> None:
        norms = [norm for norm in reversed(self._norms) if norm is not None]
        u_bar, w = self._u_bar, self._w
        self._u_bar = self._w = None
        if len(norms) < len(self._norms) or u_bar is None or w is None:
            return  # a pass that did not begin at the last state
        history = torch.stack([torch.where(norm == 0, norm, norm / norms[0]) for norm in norms[1:]])
        self._ended(Descent(u_bar, w, history, time.perf_counter() - self._started))


def unroll(step: Callable[[Tensor], Tensor], u: Tensor, method: Unrolled, tape: Tape) -> Tensor:
    """Apply a fixed-point iteration K times on the tape.

    Args:
        step: F, differentiable.
        u: the first state, ``(B, m)``, from :meth:`Tape.begin`.
        method: K, and whether to checkpoint.
        tape: to be told of the states.

    Returns:
        The state after K steps.
    """

    def run(u: Tensor, first: int, last: int) -> Tensor:
        for number in range(first + 1, last + 1):
            u = step(u)
            tape.watch(u, number)
        return u

    stride = method.checkpoint_every
    if stride is None:
        return run(u, 0, method.iterations)
    for first in range(0, method.iterations, stride):
        last = min(first + stride, method.iterations)
        u = checkpoint(run, u, first, last, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
    return u


class _First(torch.autograd.Function):
    """The identity on the first state; no gradient goes on from here."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, tape: Tape, *data: Tensor) -> Tensor:
        return u.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.tape, *data = inputs
        ctx.count = len(data)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, ...]:
        ctx.tape.note(grad_outputs[0], 0)
        return (None,) * (2 + ctx.count)
