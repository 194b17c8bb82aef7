"""What PyTorch's dispatcher does around the kernels of custom operators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_core: Any = torch._C


@contextmanager
def recording() -> Iterator[None]:
    """Automatic differentiation works in here as outside of operators, whose kernels it leaves alone."""
    key = _core.DispatchKey.AutogradFunctionality
    excluded = _core._dispatch_tls_is_dispatch_key_excluded(key)
    _core._dispatch_tls_set_dispatch_key_excluded(key, False)
    try:
        yield
    finally:
        _core._dispatch_tls_set_dispatch_key_excluded(key, excluded)
