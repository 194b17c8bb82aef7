"""The compiled module's C interface: its records and functions, as ctypes has them."""

import struct
from ctypes import POINTER, Structure, c_bool, c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np

from cvxfold.engines.lanes.library import library, single_library


class ForwardFigure(IntEnum):
    """The columns of a forward pass's figures."""

    STATUS = 0
    ITERATIONS = 1
    NEWTON_STEPS = 2
    FACTORIZATIONS = 3
    PRIMAL = 4
    DUAL = 5
    GAP = 6
    RELATIVE = 7
    CERTIFICATE = 8
    PENALTY = 9
    SECOND_PASS = 10


class BackwardFigure(IntEnum):
    """The columns of a backward pass's figures."""

    RESIDUAL = 0
    CORRECTIONS = 1
    MARGIN = 2
    ON_KINK = 3
    SMALLEST = 4
    MATTERS = 5
    OFFSET = 6
    ERROR = 7
    STRENGTH = 8
    GRADIENT = 9
    FLAT = 10


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Description(Structure):
    """``cvxfold::Description``."""

    _fields_ = [
        *_fields(c_int32, "n m zero nonnegative second_order semidefinite exponential power nnz_P nnz_A"),
        *_fields(c_void_p, "sizes orders alpha P_row P_column A_start A_column A_own order"),
    ]


class Update(Structure):
    """``cvxfold::Panel::Update``."""

    _fields_ = [*_fields(c_int32, "column run count"), ("entry", c_int32 * 4), ("target", c_int32 * 4)]


class Panel(Structure):
    """``cvxfold::Panel``."""

    _fields_ = _fields(c_int32, "first count begin end")


class MatrixEntry(Structure):
    """``cvxfold::MatrixRows::Entry``."""

    _fields_ = _fields(c_int32, "i j row entry")


class MatrixRows(Structure):
    """``cvxfold::MatrixRows``."""

    _fields_ = _fields(c_int32, "row order first count columns own pairs sparse")


class Shape(Structure):
    """``cvxfold::Shape``."""

    _fields_ = [
        *_fields(c_int32, "n m N zero nonnegative second_order semidefinite exponential power"),
        *_fields(c_int32, "nnz_P nnz_A nnz_K nnz_L frame roots"),
        *_fields(c_void_p, "sizes orders alpha P_row P_column A_start A_column place K_start K_row"),
        *_fields(c_void_p, "P_in_K A_in_K diagonal_in_K"),
        *_fields(c_int32, "leaves"),
        *_fields(c_void_p, "leaf_start L_start L_row L_reach"),
        *_fields(c_int32, "panels"),
        *_fields(c_void_p, "panel update"),
        *_fields(c_int32, "matrix_row matrix_end"),
        *_fields(c_void_p, "matrices own_start own_entry own_column own_place column_start in_column"),
        *_fields(c_int32, "pairs"),
        *_fields(c_void_p, "pair_in_K"),
        *_fields(c_bool, "diagonal_P dear alone apart"),
    ]


class Map(Structure):
    """``cvxfold::Map``."""

    _fields_ = _fields(c_void_p, "start index reach weight constant")


class Layout(Structure):
    """``cvxfold::Layout``."""

    _fields_ = [
        *_fields(c_int32, "entries parameters outputs"),
        *_fields(c_void_p, "parameter_sizes output_sizes output_index output_scale output_least output_most"),
        *_fields(Map, "P q A b"),
        *_fields(c_int32, "moving_P moving_q moving_A moving_b"),
        *_fields(c_void_p, "which_P which_q which_A which_b"),
        *_fields(c_int32, "moving_rows"),
        *_fields(c_void_p, "which_rows"),
    ]


class KernelSettings(Structure):
    """``cvxfold::Settings``."""

    _fields_ = [
        *_fields(c_double, "eps_abs eps_rel eps_infeasible penalty relaxation seconds"),
        *_fields(c_int32, "max_iters penalty_is_fixed refine accelerated"),
    ]


class Call(Structure):
    """``cvxfold::Call``."""

    _fields_ = [
        *_fields(c_int32, "batch threads shared"),
        *_fields(c_void_p, "parameters strides"),
        *_fields(c_int32, "start_width"),
        *_fields(c_void_p, "start outputs ends figures state places"),
    ]


class BackwardCall(Structure):
    """``cvxfold::BackwardCall``."""

    _fields_ = [
        *_fields(c_int32, "batch threads shared raw"),
        *_fields(c_double, "tolerance suspect negligible"),
        *_fields(c_void_p, "output_gradients gradients figures state asked"),
    ]


@cache
def functions(single: bool = False) -> Any:
    """The compiled module with the types of its functions set.

    Args:
        single: for few instances, where there is one of its own for them.

    Raises:
        RuntimeError: there is no compiled module.
    """
    module: Any = (single and single_library()) or library()
    if module is None:
        raise RuntimeError("there is no compiled module")
    module.cvxfold_new.restype = c_void_p
    module.cvxfold_new.argtypes = [POINTER(Description), POINTER(Layout)]
    module.cvxfold_free.restype = None
    module.cvxfold_free.argtypes = [c_void_p]
    module.cvxfold_counts.restype = None
    module.cvxfold_counts.argtypes = [c_void_p, POINTER(c_int64), POINTER(c_int64)]
    module.cvxfold_shape.restype = None
    module.cvxfold_shape.argtypes = [c_void_p, POINTER(Shape)]
    module.cvxfold_state_size.restype = c_int64
    module.cvxfold_state_size.argtypes = [c_void_p, c_int, c_int]
    module.cvxfold_bytes_at_work.restype = c_int64
    module.cvxfold_bytes_at_work.argtypes = [c_void_p, c_int]
    module.cvxfold_forward.restype = c_int
    module.cvxfold_forward.argtypes = [c_void_p, POINTER(KernelSettings), c_char_p]
    module.cvxfold_points.restype = c_int
    module.cvxfold_points.argtypes = [c_void_p, c_int, c_int, *[c_void_p] * 4]
    module.cvxfold_backward.restype = c_int
    module.cvxfold_backward.argtypes = [c_void_p, c_char_p]
    for backward, figures in enumerate((ForwardFigure, BackwardFigure)):
        if module.cvxfold_figures(backward) != len(figures):
            raise RuntimeError("the compiled module and its Python do not belong together")
    return module


def address(array: np.ndarray) -> int:
    """Where an array begins."""
    return array.ctypes.data


def number_at(address: int) -> float:
    """The double that stands there."""
    return c_double.from_address(address).value


_FORMATS = {c_int32: "i", c_double: "d", c_void_p: "P"}


def packing(record: Any, addresses: int, numbers: int, more: int) -> struct.Struct:
    """How a record lies in memory with so many addresses, int64 and addresses again behind it.

    Bytes are made much faster than records of ctypes, and taken as well.
    """
    own = "".join(_FORMATS[kind] for _, kind in record._fields_)
    return struct.Struct(f"@{own}{addresses}P{numbers}q{more}P")
