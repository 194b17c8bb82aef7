"""Problems named on the command line."""

from pathlib import Path

import pytest
import torch

from cvxfold.cli.named_problem import ProblemError, load_problem

GOOD = """
import cvxpy as cp
import numpy as np

def least_squares():
    x, A, b = cp.Variable(2, name="x"), cp.Parameter((3, 2), name="A"), cp.Parameter(3, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])

    def sample(batch, seed):
        rng = np.random.default_rng(seed)
        return rng.standard_normal((batch, 3, 2)), rng.standard_normal(3)

    return problem, [A, b], [x], sample

def unseeded():
    problem, parameters, variables, _ = least_squares()
    return problem, parameters, variables, lambda batch: (np.random.randn(batch, 3, 2), np.random.randn(3))

def wrong_shape():
    problem, parameters, variables, _ = least_squares()
    return problem, parameters, variables, lambda batch, seed: (np.zeros((batch, 2, 3)), np.zeros(3))

def wrong_number():
    problem, parameters, variables, _ = least_squares()
    return problem, parameters, variables, lambda batch, seed: (np.zeros(3),)

def helper(batch):
    return np.ones(3) + np.ones(batch + 4)

def broken_sampler():
    problem, parameters, variables, _ = least_squares()
    return problem, parameters, variables, lambda batch, seed: helper(batch)

def broken_problem():
    cp.Variable(3) + cp.Variable(4)

def failing_sampler():
    problem, parameters, variables, _ = least_squares()
    return problem, parameters, variables, lambda batch, seed: 1 / 0

def three():
    return least_squares()[:3]

def no_problem():
    return (3, *least_squares()[1:])

def no_parameters():
    problem, _, variables, sampler = least_squares()
    return problem, variables, variables, sampler

def no_sampler():
    return (*least_squares()[:3], None)

def failing():
    raise RuntimeError("on purpose")

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of targets."""
    (tmp_path / "my_targets.py").write_text(GOOD)
    (tmp_path / "broken_target.py").write_text("import no_such_package_at_all")
    (tmp_path / "raising_target.py").write_text("raise ValueError('at import')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["my_targets:least_squares", "my_targets.py:least_squares"])
def test_loads_and_samples(name: str, here: Path) -> None:
    target = load_problem(name)
    assert [p.name() for p in target.parameters] == ["A", "b"]
    A, b = target.sample(4, seed=1, dtype=torch.float32)
    assert A.shape == (4, 3, 2)
    assert b.shape == (3,)
    assert A.dtype == torch.float32
    again = target.sample(4, seed=1)
    assert torch.equal(again[0].float(), A)
    assert not torch.equal(target.sample(4, seed=2)[0].float(), A)


def test_an_absolute_path(here: Path) -> None:
    assert load_problem(f"{here / 'my_targets.py'}:least_squares").variables[0].name() == "x"


def test_a_sampler_without_seed_is_seeded(here: Path) -> None:
    target = load_problem("my_targets:unseeded")
    first, second, other = (target.sample(2, seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_targets", "expected module:function"),
        (":least_squares", "expected module:function"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("my_targets.inner:f", "there is no module 'my_targets.inner'"),
        ("missing.py:f", "there is no file missing.py"),
        ("broken_target:f", "needs the module 'no_such_package_at_all'"),
        ("raising_target:f", "raised ValueError: at import"),
        ("raising_target.py:f", "raised ValueError: at import"),
        ("my_targets:nothing", "there is no function 'nothing'"),
        ("my_targets:number", "not a function"),
        ("my_targets:failing", "raised RuntimeError: on purpose"),
        ("my_targets:three", "got tuple of 3"),
        ("my_targets:no_problem", "the problem is int"),
        ("my_targets:no_parameters", "parameters is not a list of cvxpy.Parameter"),
        ("my_targets:no_sampler", "the sampler is NoneType"),
    ],
)
def test_what_is_wrong_is_named(name: str, words: str, here: Path) -> None:
    with pytest.raises(ProblemError) as error:
        load_problem(name)
    assert words in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_shape", "parameter 0 (A): expected shape (2, 3, 2) or (3, 2), got (2, 2, 3)"),
        ("wrong_number", "one array for each of 2 parameters, got 1"),
        ("failing_sampler", "sampler(2, 0) raised ZeroDivisionError"),
    ],
)
def test_bad_samples_are_named(name: str, words: str, here: Path) -> None:
    with pytest.raises(ProblemError) as error:
        load_problem(f"my_targets:{name}").sample(2)
    assert words in str(error.value)


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(GOOD.splitlines(), 1) if text in line)


def test_an_error_has_the_place_in_the_users_file(here: Path) -> None:
    """Also where the error comes from a library, deeper down."""
    with pytest.raises(ProblemError) as error:
        load_problem("my_targets:failing")
    place = f"(my_targets.py:{line_of('on purpose')})"
    assert str(error.value) == f"my_targets:failing: failing() raised RuntimeError: on purpose {place}"
    with pytest.raises(ProblemError) as error:
        load_problem("my_targets.py:broken_problem")
    assert str(error.value).endswith(f" (my_targets.py:{line_of('cp.Variable(3) + cp.Variable(4)')})")
    for name, text in (("failing_sampler", "1 / 0"), ("broken_sampler", "np.ones(batch + 4)")):
        with pytest.raises(ProblemError) as error:
            load_problem(f"my_targets:{name}").sample(2)
        assert str(error.value).endswith(f" (my_targets.py:{line_of(text)})")


@pytest.mark.parametrize("name", ["raising_target:f", "raising_target.py:f"])
def test_an_error_at_import_has_its_place(name: str, here: Path) -> None:
    with pytest.raises(ProblemError) as error:
        load_problem(name)
    assert str(error.value).endswith("raised ValueError: at import (raising_target.py:1)")
