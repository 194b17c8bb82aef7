"""The losses that ``analyze`` and ``compare`` differentiate."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LossFunction = Callable[..., Tensor]
"""From the output tensors, one argument each, to a scalar."""


@dataclass(frozen=True)
class RandomLinearLoss:
    """Σ ⟨W, output⟩ with standard normal weights W, the same for outputs of the same shapes."""

    seed: int

    def __call__(self, *outputs: Tensor) -> Tensor:
        """The loss, a scalar."""
        generator = torch.Generator().manual_seed(self.seed)
        terms = [
            (
                torch.randn(output.shape, dtype=torch.float64, generator=generator, device="cpu").to(output)
                * output
            ).sum()
            for output in outputs
        ]
        return torch.stack(terms).sum()
