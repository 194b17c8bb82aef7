"""Gram–Schmidt orthogonalization, batched: what every Krylov method with a basis does."""

from torch import Tensor


def orthogonalized(v: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of ``v`` ``(B, m)`` beside the orthonormal rows of ``basis`` ``(B, k, m)``.

    Twice, for orthogonality to working precision.

    Returns:
        The rest ``(B, m)`` and the coefficients along the basis ``(B, k)``.
    """
    coefficients = basis.new_zeros(basis.shape[:2])
    for _ in range(2):
        overlap = (basis @ v.unsqueeze(-1)).squeeze(-1)
        coefficients = coefficients + overlap
        v = v - (overlap.unsqueeze(-2) @ basis).squeeze(-2)
    return v, coefficients
