"""Every atom, attribute and class of constraint that cvxpy has is right or refused, as docs/language.md says.

Wrong answers fail in :func:`problems.language.outcome`, by values, by Clarabel and by finite differences.
"""

import inspect

import cvxpy as cp
import pytest
from cvxpy import atoms
from cvxpy.version import version

from problems.atoms import ATOMS, GEOMETRIC, UNNAMED
from problems.language import ATTRIBUTES, NONE, PAGE, SHAPES, Shape, tables, written
from problems.marks import sliced

ROWS = [(table, name) for table, rows in tables().items() for name in rows]
SAMPLE = 9  # every ninth row, for vectors or else square matrices, is in the default run
pytestmark = pytest.mark.filterwarnings("ignore")


def label(case: tuple[int, Shape]) -> str:
    number, shape = case
    return f"{'-'.join(ROWS[number])}-{shape}"


@pytest.mark.parametrize(
    "case",
    sliced(
        [(number, shape) for number in range(len(ROWS)) for shape in SHAPES],
        lambda case: case[0] % SAMPLE != 0 or case[1] not in ((3,), (3, 3)),
    ),
    ids=label,
)
def test_right_or_refused(case: tuple[int, Shape]) -> None:
    number, shape = case
    table, name = ROWS[number]
    found = tables()[table][name](shape)
    if version in PAGE.read_text(encoding="utf-8"):  # of other versions, that none is wrong is enough
        assert found == written()[table, name][SHAPES.index(shape)]


def test_the_page_has_all_of_them() -> None:
    assert set(written()) == set(ROWS)
    assert all(set(cells) <= {"right", "refused", NONE} for cells in written().values())


def test_no_atom_is_left_out() -> None:
    names = {name for name, value in inspect.getmembers(atoms) if not inspect.ismodule(value)}
    covered = {name.split(",")[0] for name in [*ATOMS, *GEOMETRIC]} | UNNAMED
    assert {name for name in names if not name.startswith("_")} <= covered


def test_no_attribute_is_left_out() -> None:
    assert set(cp.Variable().attributes) == {*ATTRIBUTES, "boolean", "integer"}
