"""What is prepared knows for which data it was."""

from cvxfold.engines.tensors.prepare import Preparation
from cvxfold.problem.canonical import canonicalize
from problems.programs import draw, problem, values_of


def test_preparation_knows_its_own_values() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    first, other = (values_of(canonical, draw(parameters, 2, seed)) for seed in (0, 1))
    prepared = Preparation(canonical.structure).prepare(first.P, first.A)
    assert prepared.fits(first.P.clone(), first.A.clone(), bare=False)
    assert not prepared.fits(other.P, other.A, bare=False)
    assert not prepared.fits(first.P, first.A[:1], bare=False)
    assert not prepared.fits(first.P, first.A, bare=True)
