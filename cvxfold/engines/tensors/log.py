"""The table of iterations that ``verbose=True`` prints."""

from torch import Tensor

from cvxfold.engines.tensors.residuals import MeasuredResiduals

_HEADER = (
    f"{'stage':<12} {'iterations':>10} {'working':>8} {'primal':>9} {'dual':>9} {'gap':>9} {'penalty':>9}"
)


class IterationLog:
    """Prints one line for each check; each residual is the largest among the instances at work.

    Args:
        enabled: whether to print at all.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._started = False

    def row(self, stage: str, iterations: int, residual: MeasuredResiduals, penalty: Tensor) -> None:
        """Print a line, below the header if it is the first."""
        if not self._enabled:
            return
        if not self._started:
            print(_HEADER)
            self._started = True
        worst = " ".join(f"{float(r.amax()):9.1e}" for r in (residual.primal, residual.dual, residual.gap))
        working = residual.primal.shape[0]
        print(f"{stage:<12} {iterations:>10} {working:>8} {worst} {float(penalty.median()):9.1e}", flush=True)
