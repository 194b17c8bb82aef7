"""What a layer keeps from call to call changes its speed, never its answers."""

import copy
import gc
import pickle

import pytest
import torch

from cvxfold.layer.answer import Answer
from cvxfold.layer.shortcut import ShortCall
from problems.families import FAMILIES
from problems.layers import layer_of


def test_factor_is_kept_while_P_and_A_stay() -> None:
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family, engine="tensors")
    layer(*family.sample(4, 0))
    engine = layer.session.engine
    prepared, factor = engine._prepared, engine._memory.splitting._normal.factor
    layer(*family.sample(9, 1))
    assert engine._prepared is prepared
    assert engine._memory.splitting._normal.factor is factor


def test_answers_do_not_depend_on_what_came_before() -> None:
    family = FAMILIES["dense_qp5"]()
    fresh, used = layer_of(family), layer_of(family)
    for batch, seed in ((3, 1), (8, 2), (8, 3), (1, 4)):
        used(*family.sample(batch, seed))
    params = family.sample(8, 5)
    for mine, theirs in zip(used(*params), fresh(*params), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_same_call_twice_gives_the_same_bits_from_fresh_layers() -> None:
    family = FAMILIES["dense_qp5"]()
    params = family.sample(4, 0)
    first, second = (layer_of(family)(*params) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_changed_values_in_place_are_noticed() -> None:
    """A tensor that is overwritten between calls, as optimizers do, is not mistaken for the old one."""
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family)
    params = list(family.sample(3, 0))
    layer(*params)
    for old, new in zip(params, family.sample(3, 1), strict=True):
        old.copy_(new)
    expected = layer_of(family)(*family.sample(3, 1))
    for mine, theirs in zip(layer(*params), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_copies_and_pickles_work_on_their_own() -> None:
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family)
    params = family.sample(3, 0)
    expected = layer(*params)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for mine, theirs in zip(other(*params), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("engine")
def test_a_warm_start_finds_the_solution_where_it_is() -> None:
    """Whoever starts warm once is expected to do so again; until then nothing need be kept."""
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family)
    params = family.sample(4, 0)
    cold = layer(*params)
    iterations = layer.report.forward.iterations
    layer(*params, warm_start=True)
    warm = layer(*params, warm_start=True)
    assert (layer.report.forward.iterations <= iterations).all()
    assert layer.report.forward.newton_steps.max() <= 2
    for mine, theirs in zip(warm, cold, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    other = layer_of(family)(*family.sample(4, 1))
    for mine, theirs in zip(layer(*family.sample(4, 1), warm_start=True), other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("engine")
def test_a_warm_start_after_a_call_without_a_solution() -> None:
    family = FAMILIES["dense_qp5"]()
    layer = layer_of(family, on_unsolvable="nan")
    *others, A, b = family.sample(4, 0)
    expected = layer(*others, A, b)
    broken_A, broken_b = A.clone(), b.clone()
    broken_A[1], broken_b[1] = 0.0, 1.0  # a row 0ᵀx = 1
    for _ in range(2):
        layer(*others, broken_A, broken_b, warm_start=True)
    for mine, theirs in zip(layer(*others, A, b, warm_start=True), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_warm_start_begins_at_the_solution() -> None:
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family, refine=False)
    params = family.sample(4, 0)
    cold = layer(*params, warm_start=True)
    iterations = layer.report.forward.iterations.clone()
    warm = layer(*params, warm_start=True)
    assert (layer.report.forward.iterations <= iterations).all()
    assert layer.report.forward.iterations.sum() < iterations.sum()
    for mine, theirs in zip(warm, cold, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    layer(*family.sample(2, 1), warm_start=True)  # another batch size starts cold


@pytest.mark.usefixtures("engine")
def test_nothing_is_kept_for_backward_without_grad() -> None:
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family)
    params = [p.requires_grad_() for p in family.sample(3, 0)]

    def kept() -> int:
        return sum(type(o) in (Answer, ShortCall) for o in gc.get_objects())

    gc.collect()
    before = kept()
    with torch.no_grad():
        outputs = layer(*params)
    gc.collect()
    assert kept() == before
    assert outputs[0].grad_fn is None
    outputs = layer(*params)
    assert kept() == before + 1
    del outputs
    gc.collect()
    assert kept() == before


@pytest.mark.usefixtures("engine")
def test_what_a_call_leaves_goes_with_its_outputs() -> None:
    """At once, without the garbage collector: a loop would pile it up until that comes by."""
    family = FAMILIES["constant_qp"]()
    layer = layer_of(family)
    params = [p.requires_grad_() for p in family.sample(3, 0)]

    def kept() -> int:
        return sum(type(o) in (Answer, ShortCall) for o in gc.get_objects())

    gc.collect()
    before = kept()
    gc.disable()
    try:
        for _ in range(4):
            (x,) = layer(*params)
            x.sum().backward()
            assert kept() == before + 1
            del x
        assert kept() == before
    finally:
        gc.enable()
    assert len(layer.report.forward.status) == len(layer.report.backward.verdict) == 3
