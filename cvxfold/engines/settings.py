"""What a forward pass should reach and what it may spend."""

from dataclasses import dataclass

FIRST_ROUND = 25
"""Applications of F before the first finish."""

PATIENCE = 300
"""Applications of F that an instance may have without coming nearer, unless asked otherwise."""

RELAXATION = 1.6
"""α of the splitting iteration unless asked otherwise."""


@dataclass(frozen=True)
class ForwardSettings:
    """What the forward pass should reach and what it may spend.

    Args:
        eps_abs: absolute tolerance on the primal residual, the dual residual and the gap.
        eps_rel: the same relative to the sizes that SCS measures each of them against.
        eps_infeasible: tolerance of a certificate of infeasibility or unboundedness.
        max_iters: applications of F at most; there is no finish before the first 25.
        refine: whether to finish by Newton steps.
        verbose: whether to print a line for each check.
        penalty: ρ for all of the batch; None lets it follow the residuals.
        relaxation: α in (0, 2).
        time_limit: seconds at most; None for no limit.
        acceleration: memory of Anderson acceleration in the later rounds; 0 for none.
        patience: applications of F after which an instance is given up that a finish does not move any more.
    """

    eps_abs: float = 1e-8
    eps_rel: float = 1e-8
    eps_infeasible: float = 1e-7
    max_iters: int = 20_000
    refine: bool = True
    verbose: bool = False
    penalty: float | None = None
    relaxation: float = RELAXATION
    time_limit: float | None = None
    acceleration: int = 8
    patience: int = PATIENCE

    @property
    def eps(self) -> float:
        """What the number that is tested is held against: the larger of the two tolerances."""
        return max(self.eps_abs, self.eps_rel)

    @property
    def bare(self) -> bool:
        """A limit below the first round is a wish to see the iteration itself: no presolve, no finish."""
        return self.max_iters < FIRST_ROUND
