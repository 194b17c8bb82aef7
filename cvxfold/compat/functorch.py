"""What ``torch.func`` and ``torch.compile`` do to tensors and functions, as far as a layer must know."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

_P = ParamSpec("_P")
_T = TypeVar("_T")

_pyfunctorch: Any = import_module("torch._functorch.pyfunctorch")
_forward_ad: Any = torch.autograd.forward_ad
_functorch: Any = vars(torch._C)["_functorch"]  # PyTorch has no public name for these
_compiles: Callable[[], Any] = getattr(
    import_module("torch._C._dynamo.eval_frame"),
    "get_eval_frame_callback",
    lambda: sys.modules.get("torch._dynamo"),
)
"""What ``torch.compile`` does with the functions that this thread calls; None for nothing."""


def is_mapped(tensor: Tensor) -> bool:
    """Whether a ``torch.func.vmap`` is at work on the tensor, so that its values cannot be looked at."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


is_wrapped: Callable[[Tensor], bool] = _functorch.is_functorch_wrapped_tensor
"""Whether a ``torch.func`` transformation is at work on a tensor."""


@contextmanager
def lasting() -> Iterator[None]:
    """Tensors made in here belong to none of the transformations at work, nor to inference mode."""
    with torch.inference_mode(False), _pyfunctorch.temporarily_clear_interpreter_stack():
        yield


def dual_numbers() -> bool:
    """Whether tensors may have tangents, by ``torch.autograd.forward_ad``."""
    return _forward_ad._current_level >= 0


def is_legacy_mapped(tensor: Tensor) -> bool:
    """Whether it is mapped by ``is_grads_batched``, which does not ask a Function how it maps."""
    return _functorch.is_legacy_batchedtensor(tensor)


_transforms: Callable[[], bool] = vars(torch._C)["_are_functorch_transforms_active"]


def applied(function: type[torch.autograd.Function], *args: Any) -> Any:
    """``function.apply`` for tensors on which no transformation is or was at work, of a ``forward`` with ctx.

    PyTorch's own looks for those before it does the same, which takes as long as all the rest.
    """
    if _transforms():
        return function.apply(*args)
    plain: Any = super(torch.autograd.Function, function)
    return plain.apply(*args)


def nothing_kept(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """``setup_context`` of a ``torch.autograd.Function`` whose derivatives need nothing."""


def refusing(reason: str) -> Callable[..., Any]:
    """``backward`` or ``jvp`` of a ``torch.autograd.Function`` that has none: NotImplementedError."""

    def refuse(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(reason)

    return refuse


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that ``torch.compile`` leaves alone, with one break of the graph around it.

    As ``torch.compiler.disable``, which would make every ``import cvxfold`` wait for the compiler's.
    """

    @functools.wraps(function)
    def left_alone(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if _compiles() is None:
            return function(*args, **kwargs)
        return sys.modules["torch._dynamo"].disable(function)(*args, **kwargs)

    vars(left_alone)["_torchdynamo_disable"] = True  # not traced from a compiled caller either
    return left_alone
