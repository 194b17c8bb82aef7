"""One family at one size and batch: all peers, in turns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.passes import Pass, drawn, forget, one_pass, weights_of
from cvxfold.studies.bench.peers import Evaluate, Peer
from cvxfold.studies.bench.result import BenchCell, Measurement
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.bench.truth import CellTruth, truth
from cvxfold.studies.measure import measure, timed

_CPU = torch.device("cpu")
_FEW = (1, 8, 64)  # instances of the trials that tell how long a batch will take
_TRIAL, _FIRST = -1, -2  # rounds that are not measured


@dataclass
class _Contender:
    """A peer under way."""

    peer: Peer
    evaluate: Evaluate | None = None
    setup: float | None = None
    first: float | None = None
    peak_bytes: int | None = None
    passes: list[Pass] = field(default_factory=list)
    spent: float = 0.0
    answer: Pass | None = None
    note: str = ""


def measure_cell(
    family: Family, size: int, batch: int, peers: Sequence[Peer], settings: BenchSettings
) -> BenchCell:
    """Measure all peers.

    1. Each makes its layer, from a problem of its own, and makes first calls that are not timed.
    2. In each round everybody solves and differentiates the same new values, one after the other, beginning
       with another one each time, so that what else the machine does hits all alike.
    3. The answers of the first round are compared with the reference.
    """
    weights = weights_of(family, size, batch, settings.seed)
    contenders = [_Contender(peer) for peer in peers if peer.suits(family)]
    for one in contenders:  # 1
        with _guarded(one):
            _begin(one, family, size, weights, settings)
    for turn in range(settings.rounds):  # 2
        values = drawn(family, size, batch, settings.seed, turn)
        start = turn % max(1, len(contenders))
        for one in [*contenders[start:], *contenders[:start]]:
            if one.evaluate is not None and not (one.passes and one.spent > settings.time_limit):
                with _guarded(one):
                    _turn(one, values, weights, turn)
    exact = truth(family, size, drawn(family, size, batch, settings.seed, 0), weights)  # 3
    return BenchCell(
        family.name,
        size,
        batch,
        tuple(_measured(one, exact, settings.rounds) for one in contenders),
        0 if isinstance(exact, str) else len(exact.instances),
    )


@contextmanager
def _guarded(one: _Contender) -> Iterator[None]:
    """Let a peer fail without ending the benchmark."""
    try:
        yield
    except Exception as error:
        one.evaluate = None
        text = " ".join(str(error).split())
        one.note = f"fails: {type(error).__name__}: {text[:120]}"


def _begin(
    one: _Contender, family: Family, size: int, weights: Sequence[Tensor], settings: BenchSettings
) -> None:
    """Set up, see how long a batch would take, and measure the memory of one."""
    stated, batch = family.state(size), len(weights[0])
    layer, one.setup = timed(lambda: one.peer.layer(family, stated, settings.threads), _CPU)
    expected = _expected(one, layer, (family, size), weights, settings)
    if expected > settings.time_limit:
        one.note = f"skipped: about {expected:.0f} s a pass"
        return
    values = drawn(family, size, batch, settings.seed, _FIRST)
    forget()
    measured = measure(lambda: one_pass(layer, values, weights), _CPU)
    one.peak_bytes = measured.peak_bytes
    one.spent += measured.value.seconds
    one.evaluate = layer


def _expected(
    one: _Contender,
    layer: Evaluate,
    of: tuple[Family, int],
    weights: Sequence[Tensor],
    settings: BenchSettings,
) -> float:
    """Seconds that a pass over the batch will take, from passes over a few instances, which also warm up."""
    batch, limit, expected = len(weights[0]), settings.time_limit, 0.0
    for few in sorted({min(few, batch) for few in _FEW}):
        values, some = drawn(*of, few, settings.seed, _TRIAL), [weight[:few] for weight in weights]
        seconds = one_pass(layer, values, some).seconds
        one.spent += seconds
        if one.first is None:
            one.first = seconds
        if seconds <= limit:  # else once more would not help
            seconds = one_pass(layer, values, some).seconds
            one.spent += seconds
        expected = seconds * batch / few
        if expected <= limit or seconds > limit:
            break
    return expected


def _turn(one: _Contender, values: Sequence[Tensor], weights: Sequence[Tensor], turn: int) -> None:
    assert one.evaluate is not None
    done = one_pass(one.evaluate, values, weights)
    if turn == 0:
        one.answer = done
    one.passes.append(Pass([], [], done.forward, done.backward))
    one.spent += done.seconds


def _measured(one: _Contender, exact: CellTruth | str, rounds: int) -> Measurement:
    note, answer = one.note, one.answer
    if not note and len(one.passes) < rounds:
        note = f"{len(one.passes)} of {rounds} rounds"
    forward_error = gradient_error = None
    if answer is not None and isinstance(exact, CellTruth):
        forward_error = exact.forward_error(answer.outputs)
        gradient_error = exact.gradient_error(answer.gradients)
    elif isinstance(exact, str):
        note = "; ".join(part for part in (note, exact) if part)
    return Measurement(
        peer=one.peer.name,
        setup=one.setup,
        first=one.first,
        forward=tuple(done.forward for done in one.passes),
        backward=tuple(done.backward for done in one.passes),
        peak_bytes=one.peak_bytes,
        forward_error=forward_error,
        gradient_error=gradient_error,
        note=note,
    )
