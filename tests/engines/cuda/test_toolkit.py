"""What asks a driver, by a driver that is not there."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cvxfold.engines.cuda import toolkit
from cvxfold.engines.cuda.batch import CudaBatch
from cvxfold.engines.lanes.batch import Passed


def test_kernels_tell_their_registers_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = SimpleNamespace(CU_FUNC_ATTRIBUTE_NUM_REGS=4, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES=3)

    def attribute(kind: int, function: str) -> tuple[Any, int]:
        return SimpleNamespace(value=0), {4: 168, 3: 8}[kind] + len(function)

    driver = SimpleNamespace(CUfunction_attribute=kinds, cuFuncGetAttribute=attribute)
    monkeypatch.setattr(toolkit, "_bindings", lambda name: driver)
    kernels = toolkit.Kernels.__new__(toolkit.Kernels)
    kernels._functions = {"forward": "7 letters", "points": "six"}
    assert kernels.sizes() == {"forward": (177, 17), "points": (171, 11)}


def test_a_graph_that_is_captured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started: what waits for the device would end the capture by an error of its own."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    batch = CudaBatch.__new__(CudaBatch)
    batch.device = torch.device("cuda")
    nothing = torch.zeros(0)
    with pytest.raises(RuntimeError, match="CUDA graph"):
        batch.forward([], 1, [], None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="CUDA graph"):
        batch.backward(Passed(nothing, nothing, False, 0, 4), [], [], (1e-9, 1e-5, 1e-6))
