"""What loggers get: a report as a dictionary, and the monitor that sums up calls."""

import math

import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import case, evaluate, make_layer
from problems.degenerate import projection


@pytest.mark.usefixtures("engine")
def test_report_as_a_dictionary() -> None:
    c = case("portfolio", 4)
    layer = make_layer(c)
    evaluate(layer, c)
    flat = layer.report.to_dict()
    assert all(isinstance(value, float) for value in flat.values())
    assert flat["verdict/converged"] == 4
    assert flat["verdict/degenerate"] == 0
    assert flat["backward/residual_max"] == float(layer.report.backward.residual.max())
    assert flat["forward/solved"] == 4
    assert flat["forward/iterations_max"] == float(layer.report.forward.iterations.max()) > 0


@pytest.mark.usefixtures("engine")
def test_the_monitor_counts_over_calls() -> None:
    problem, parameters, variables = projection()
    layer = CvxpyLayer(problem, parameters, variables, on_unconverged="ignore")
    seen: list[bool] = []
    end = layer.on_report(lambda report: seen.append(report.backward is not None))
    with cvxfold.Monitor(layer) as monitor:
        for i in range(5):
            c = torch.tensor([[1.0, 0.0 if i == 2 else 1.0], [2.0, 1.0]], dtype=torch.float64)
            layer(c.requires_grad_())[0].sum().backward()
        assert seen == [False, True] * 5
        end()
        flat = monitor.to_dict()
        assert flat["calls/forward"] == flat["calls/backward"] == 5
        assert flat["verdict/degenerate"] == 1
        assert flat["verdict/converged"] == 9
        assert 0 < flat["backward/residual_max"] < 1e-9
        assert "9 converged, 1 degenerate" in str(monitor)
        monitor.reset()
        assert math.isnan(monitor.to_dict()["backward/residual_max"])
    layer(torch.ones(1, 2, dtype=torch.float64))
    assert monitor.to_dict()["calls/forward"] == 0
    assert len(seen) == 10
