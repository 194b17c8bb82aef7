"""Families: what cvxpy itself finds with Clarabel, and cvxfold's gradients against the reference."""

import pytest
import torch

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.families.table import FAMILIES, families
from cvxfold.studies.bench.passes import drawn, one_pass, weights_of
from cvxfold.studies.bench.peers import PEERS
from cvxfold.studies.bench.truth import CellTruth, truth

SMALL = {"mpc": 3, "correlation": 4, "geometric": 3, "transport": 3}
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-12)


def small(family: Family) -> int:
    return SMALL.get(family.name, 6)


def case(family: Family, batch: int = 2) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return drawn(family, small(family), batch, 3, 0), weights_of(family, small(family), batch, 3)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # the tolerances are out of reach for some
@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_the_reference_is_what_cvxpy_finds(family: Family) -> None:
    values, weights = case(family)
    exact = truth(family, small(family), values, weights)
    assert isinstance(exact, CellTruth)
    stated = family.state(small(family))
    for place, instance in enumerate(exact.instances):
        for parameter, value in zip(stated.parameters, values, strict=True):
            parameter.value = value[instance].numpy()
        stated.problem.solve(solver="CLARABEL", gp=stated.gp, **TIGHT)
        for variable, found in zip(stated.variables, exact.values[place], strict=True):
            torch.testing.assert_close(
                torch.tensor(variable.value), torch.tensor(found), rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_cvxfold_is_right_on_all(family: Family) -> None:
    values, weights = case(family)
    exact = truth(family, small(family), values, weights)
    assert isinstance(exact, CellTruth)
    layer = PEERS["cvxfold"].layer(family, family.state(small(family)), None)
    found = one_pass(layer, values, weights)
    assert exact.forward_error(found.outputs) < 1e-8
    assert exact.gradient_error(found.gradients) < 1e-8


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if f.matrices], ids=lambda f: f.name)
def test_matrices_are_the_same_problem(family: Family) -> None:
    """Of the solution x: it is feasible, and the cost's gradient is a combination of active rows'."""
    assert family.matrices is not None
    values, weights = case(family)
    qp = family.matrices(*values)
    exact = truth(family, small(family), values, weights)
    assert isinstance(exact, CellTruth)
    x = torch.stack([torch.tensor(one[0]) for one in exact.values])
    batch, n = x.shape
    Q, p, G, h = (
        one.expand(batch, *shape)
        for one, shape in zip(
            (qp.Q, qp.p, qp.G, qp.h), ((n, n), (n,), qp.G.shape[-2:], qp.h.shape[-1:]), strict=True
        )
    )
    slack = h - torch.einsum("bij,bj->bi", G, x)
    assert float(slack.min()) > -1e-9
    for i in range(batch):
        rows = [G[i][slack[i] < 1e-7]]
        if qp.A.numel():
            A, b = qp.A.expand(batch, *qp.A.shape[-2:])[i], qp.b.expand(batch, qp.b.shape[-1])[i]
            torch.testing.assert_close(A @ x[i], b)
            rows.append(A)
        active, slope = torch.cat(rows), Q[i] @ x[i] + p[i]
        multipliers = torch.linalg.lstsq(active.mT, -slope.unsqueeze(1)).solution
        torch.testing.assert_close(active.mT @ multipliers, -slope.unsqueeze(1), rtol=1e-7, atol=1e-8)


def test_values_depend_on_seed_and_round_alone() -> None:
    family = FAMILIES["dense-qp"]
    once, again, other = (drawn(family, 4, 2, 0, turn) for turn in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(once, other, strict=True))


def test_names() -> None:
    assert [family.name for family in families(["lp", "tv"])] == ["lp", "tv"]
    assert len(families(None)) == len(FAMILIES) == 13
    with pytest.raises(ValueError, match=r"expected one of portfolio, .* got 'none'"):
        families(["none"])


def test_a_problem_is_fresh_each_time() -> None:
    first, second = FAMILIES["portfolio"].state(4), FAMILIES["portfolio"].state(4)
    assert first.problem is not second.problem
    assert first.parameters[0] is not second.parameters[0]
