"""The sets that parameters are declared to lie in, and which instances do."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SLACK = 1e-5  # relative to the largest entry; a declared set is left by this much in finite differences
_ROUNDINGS = 100  # … and by this many roundings of the value's own dtype

NAMES = ("nonneg", "nonpos", "pos", "neg", "PSD", "NSD", "symmetric", "hermitian", "diag", "imag")
"""cvxpy's attributes that are checked, the narrower before the wider."""

DESCRIPTIONS = {
    "nonneg": "nonnegative values",
    "nonpos": "nonpositive values",
    "pos": "nonnegative values",
    "neg": "nonpositive values",
    "symmetric": "a symmetric matrix",
    "PSD": "a symmetric positive semidefinite matrix",
    "NSD": "a symmetric negative semidefinite matrix",
    "hermitian": "a Hermitian matrix",
    "diag": "a diagonal matrix",
    "imag": "imaginary numbers",
}


def inside(domain: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Which instances lie in a declared set, up to rounding.

    Args:
        domain: one of :data:`NAMES`.
        value: finite, ``(1|B, *shape)``, float64 or complex128.
        dtype: that it came in.

    Returns:
        ``(1|B,)``, bool.
    """
    if value.numel() == 0:
        return torch.ones(len(value), dtype=torch.bool, device=value.device)
    largest = value.abs().reshape(len(value), -1).amax(1)
    slack = max(_SLACK, _ROUNDINGS * torch.finfo(dtype).eps) * largest
    return _CHECKS[domain](value, slack)


def _nonnegative(value: Tensor, slack: Tensor) -> Tensor:
    return value.reshape(len(value), -1).amin(1) >= -slack


def _symmetric(value: Tensor, slack: Tensor) -> Tensor:
    return _vanishing(value - value.mT, slack)


def _vanishing(value: Tensor, slack: Tensor) -> Tensor:
    return value.abs().reshape(len(value), -1).amax(1) <= slack


def _semidefinite(value: Tensor, slack: Tensor) -> Tensor:
    """Whether a Cholesky factorization succeeds a little inside; rounding would decide it on the boundary."""
    symmetric = 0.5 * (value + value.mT)
    shift = (slack * math.sqrt(value.shape[-1])).clamp_min(torch.finfo(value.dtype).tiny)
    symmetric = symmetric + torch.diag_embed(shift.unsqueeze(-1).expand(value.shape[:-1]))
    _, failures = torch.linalg.cholesky_ex(symmetric)
    return (failures == 0) & _symmetric(value, slack)


_CHECKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nonneg": _nonnegative,
    "pos": _nonnegative,
    "nonpos": lambda value, slack: _nonnegative(-value, slack),
    "neg": lambda value, slack: _nonnegative(-value, slack),
    "symmetric": _symmetric,
    "hermitian": lambda value, slack: _vanishing(value - value.mH, slack),
    "diag": lambda value, slack: _vanishing(value - torch.diag_embed(value.diagonal(0, -2, -1)), slack),
    "imag": lambda value, slack: _vanishing(value.real, slack),
    "PSD": _semidefinite,
    "NSD": lambda value, slack: _semidefinite(-value, slack),
}
