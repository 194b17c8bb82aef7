"""What the kernels are given, as ctypes has it, and its arrays in a device's memory."""

import ctypes
from ctypes import Structure, c_double, c_int32, c_int64, c_void_p, sizeof

import numpy as np
import torch
from torch import Tensor

from cvxfold.engines.lanes.binding import (
    BackwardCall,
    Call,
    KernelSettings,
    Layout,
    MatrixEntry,
    MatrixRows,
    Panel,
    Shape,
    Update,
)

WARP = 32
"""Threads of a warp."""

SLOTS = 256
"""Addresses that a task has room for."""

_ALIGNMENT = 16


class Counters(Structure):
    """``Counters`` of kernels.cu."""

    _fields_ = [
        ("start", c_int64), ("misled", c_int32), ("left", c_int32), ("bad", c_int32), ("factored", c_int32),
    ]  # fmt: skip


class Task(Structure):
    """``Task`` of kernels.cu."""

    _fields_ = [
        ("shape", Shape), ("layout", Layout), ("settings", KernelSettings), ("call", Call),
        ("backward", BackwardCall), ("work", c_void_p), ("common", c_void_p), ("x", c_void_p),
        ("y", c_void_p), ("s", c_void_p), ("counters", c_void_p), ("misled", c_void_p), ("left", c_void_p),
        ("open", c_void_p), ("packs_at_work", c_int32), ("stage", c_int32), ("slots", c_int64 * SLOTS),
    ]  # fmt: skip


class Arrays:
    """Arrays that are copied to a device together; until then an address is an offset from one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = _ALIGNMENT

    def place(self, array: np.ndarray) -> int:
        """Add an array; returns its offset, which is never zero."""
        return self.place_bytes(array.tobytes())

    def place_bytes(self, data: bytes) -> int:
        """Add bytes."""
        at, padding = self._size, -len(data) % _ALIGNMENT
        self._parts += [data, bytes(padding)]
        self._size += len(data) + padding
        return at

    def copied(self, device: torch.device) -> Tensor:
        """All of them, on a device."""
        whole = np.frombuffer(bytes(_ALIGNMENT) + b"".join(self._parts), dtype=np.uint8).copy()
        return torch.from_numpy(whole).to(device)


def relocate(record: Structure, base: int) -> None:
    """Turn the offsets of a record, and of the records in it, into addresses from ``base`` on."""
    for name, kind, *_ in record._fields_:
        value = getattr(record, name)
        if isinstance(value, Structure):
            relocate(value, base)
        elif kind is c_void_p and value:
            setattr(record, name, base + value)


def _sizes_of_matrix_rows(shape: Shape) -> dict[str, int]:
    """The bytes of what a structure tells of semidefinite cones' rows."""
    ints, rows = ctypes.sizeof(c_int32), shape.matrix_end - shape.matrix_row
    matrices = ctypes.cast(shape.matrices, ctypes.POINTER(MatrixRows))
    columns = sum(matrices[c].count for c in range(shape.semidefinite))
    own = ctypes.cast(shape.own_start, ctypes.POINTER(c_int32))[rows]
    return {
        "matrices": sizeof(MatrixRows) * shape.semidefinite, "own_start": ints * (rows + 1),
        "own_entry": ints * own, "own_column": ints * own, "own_place": ints * own,
        "column_start": ints * (columns + 1), "in_column": sizeof(MatrixEntry) * own,
        "pair_in_K": ints * shape.pairs,
    }  # fmt: skip


def shape_on_device(shape: Shape, arrays: Arrays) -> Shape:
    """A structure whose arrays are put into ``arrays``; the kernels of a device take no instances apart."""
    ints, N = ctypes.sizeof(c_int32), shape.n + shape.m
    updates = 0
    if shape.panels:
        last = ctypes.cast(shape.panel, ctypes.POINTER(Panel))[shape.panels - 1]
        updates = last.end
    sizes = {
        "sizes": ints * shape.second_order, "orders": ints * shape.semidefinite,
        "alpha": sizeof(c_double) * shape.power, "P_row": ints * shape.nnz_P, "P_column": ints * shape.nnz_P,
        "A_start": ints * (shape.m + 1), "A_column": ints * shape.nnz_A, "place": ints * N,
        "K_start": ints * (N + 1), "K_row": ints * shape.nnz_K, "P_in_K": ints * shape.nnz_P,
        "A_in_K": ints * shape.nnz_A, "diagonal_in_K": ints * N,
        "leaf_start": ints * (N - shape.leaves + 1), "L_start": ints * (N + 1),
        "L_row": ints * shape.nnz_L, "L_reach": ints * shape.nnz_L, "panel": sizeof(Panel) * shape.panels,
        "update": sizeof(Update) * updates,
        **_sizes_of_matrix_rows(shape),
    }  # fmt: skip
    there = Shape.from_buffer_copy(shape)
    for name, size in sizes.items():
        address = getattr(shape, name)
        data = ctypes.string_at(address, size) if address and size else b""
        setattr(there, name, arrays.place_bytes(data))
    there.apart = False
    return there
