"""All families by name."""

from collections.abc import Sequence

from cvxfold.studies.bench.families.conic import CONIC
from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.families.quadratic import QUADRATIC

FAMILIES: dict[str, Family] = {family.name: family for family in (*QUADRATIC, *CONIC)}
"""In the order in which they are measured."""


def families(names: Sequence[str] | None) -> list[Family]:
    """Those of these names; all where there are none.

    Raises:
        ValueError: there is no such family; the message lists those there are.
    """
    for name in names or ():
        if name not in FAMILIES:
            raise ValueError(f"expected one of {', '.join(FAMILIES)}, got {name!r}")
    return [FAMILIES[name] for name in names or FAMILIES]
