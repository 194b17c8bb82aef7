"""Entries of a layer's outputs that have a sign by a constraint of their own, whatever the rounding."""

from dataclasses import replace

import numpy as np

from cvxfold.problem.structure import OutputSpec, Structure


def with_signs(spec: OutputSpec, structure: Structure) -> OutputSpec:
    """The variable with the signs of its terms.

    A row a xⱼ + s = 0 with s ≥ 0 gives xⱼ that of −a; multipliers of the orthant's rows are nonnegative.

    Args:
        spec: where it stands. structure: of the program.
    """
    first = structure.cones.zero
    end = first + structure.cones.nonnegative
    if spec.source == "dual":
        of_all = np.zeros(structure.m, dtype=np.int8)
        of_all[first:end] = 1
    else:
        of_all = _of_variables(structure, first, end)
    if not spec.index.size:
        return spec
    signs = of_all[spec.index] * np.sign(spec.factors).astype(np.int8)
    return replace(spec, signs=signs) if signs.any() else spec


def _of_variables(structure: Structure, first: int, end: int) -> np.ndarray:
    signs = np.zeros(structure.n, dtype=np.int8)
    rows, columns = structure.A_entries
    alone = np.bincount(rows, minlength=structure.m) == 1
    alone[structure.b_entries] = False
    alone[:first], alone[end:] = False, False
    chosen = alone[rows] & np.isfinite(structure.A_constants) & (structure.A_constants != 0)
    signs[columns[chosen]] = -np.sign(structure.A_constants[chosen])
    return signs
