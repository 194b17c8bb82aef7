"""The adjoint residuals of cvxpylayers, computed from what its own derivative computes."""

import cvxpy as cp
import pytest
import scipy.sparse as sp
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

from cvxfold.cones import ConeDims, ProductCone
from cvxfold.studies.comparison.contestants import MODES
from cvxfold.studies.comparison.recorder import Recorder, adjoint_residual
from problems.cases import case, errors, evaluate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


@pytest.mark.parametrize("mode", ["default", "tight, dense"])
@pytest.mark.parametrize("name", ["dense_qp5", "robust_portfolio", "nearest_correlation", "multi_label"])
def test_recorder_computes_what_upstream_computes(name: str, mode: str) -> None:
    c = case(name, 3)
    family, arguments = c.family, MODES[mode]
    problems = [cp.Problem(family.problem.objective, family.problem.constraints) for _ in range(2)]
    plain = UpstreamLayer(problems[0], family.parameters, family.variables)
    recorder = Recorder()
    recording = UpstreamLayer(problems[1], family.parameters, family.variables, solver=recorder)
    found, expected = (evaluate(layer, c, solver_args=arguments) for layer in (recording, plain))
    assert errors(found[0], expected[0]).max() < 1e-12
    assert errors(found[1], expected[1]).max() < 1e-12
    assert recorder.residual is not None
    assert recorder.residual.shape == (3,)


def test_residual_of_exact_and_perturbed_adjoints() -> None:
    """Loss gradients made for p and v = (I − D) z: then (D − I)(ȳ − A p) = D v with ȳ = A p − D z."""
    generator = torch.Generator().manual_seed(0)
    cone = ProductCone(ConeDims(2, 3, (3,), (2,), 1))
    m, n = cone.dim, 6
    A, u, p, z = (
        torch.randn(*size, dtype=torch.float64, generator=generator)
        for size in ((m, n), (1, m), (1, n), (1, m))
    )
    D = cone.derivative(u)
    v = D.apply(lambda d: 1 - d, z)
    x_bar, y_bar = v @ A, p @ A.mT - D.apply(lambda d: d, z)
    matrices = [sp.csc_matrix(A.numpy())]
    assert adjoint_residual(matrices, cone, u, x_bar, y_bar, p, v) < 1e-12
    for dp, dv in ((0.01, 0.0), (0.0, 0.01)):
        off = adjoint_residual(matrices, cone, u, x_bar, y_bar, p * (1 + dp), v * (1 + dv))
        assert 1e-4 < float(off) < 1
