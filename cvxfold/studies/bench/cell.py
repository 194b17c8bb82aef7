"""One family at one size and batch: all peers, in turns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.passes import DISTINCT, Pass, drawn, forget, one_pass, tiled, weights_of
from cvxfold.studies.bench.peers import Evaluate, Peer
from cvxfold.studies.bench.result import BenchCell, Measurement
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.bench.truth import CellTruth, on_host, truth
from cvxfold.studies.measure import measure, timed

_CPU = torch.device("cpu")
_FEW = (1, 8, 64)  # instances of the trials that tell how long a batch will take
_TRIAL, _FIRST = -1, -2  # rounds that are not measured


@dataclass
class _Contender:
    """A peer under way, on a device, with so many instances of the batch."""

    peer: Peer
    device: torch.device
    batch: int
    count: int
    evaluate: Evaluate | None = None
    setup: float | None = None
    first: float | None = None
    peak_bytes: int | None = None
    passes: list[Pass] = field(default_factory=list)
    spent: float = 0.0
    answer: Pass | None = None
    engine: str | None = None
    note: str = ""

    @classmethod
    def of(cls, peer: Peer, batch: int, settings: BenchSettings) -> "_Contender":
        """Where a peer works, and on how much."""
        device = torch.device(settings.device)
        if peer.on_device or device == _CPU:
            return cls(peer, device, batch, batch)
        return cls(peer, _CPU, batch, min(batch, settings.most_on_host))

    @property
    def is_whole(self) -> bool:
        """Whether it has the whole batch."""
        return self.count == self.batch

    def given(self, tensors: Sequence[Tensor], count: int | None = None) -> list[Tensor]:
        """Its own part of values or weights, or the first few, where it works."""
        count = count or self.count
        return [tiled(tensor[:count].to(self.device), count) for tensor in tensors]


def measure_cell(
    family: Family, size: int, batch: int, peers: Sequence[Peer], settings: BenchSettings
) -> BenchCell:
    """Measure all peers.

    1. Each makes its layer, from a problem of its own, and makes first calls that are not timed.
    2. In each round everybody solves and differentiates the same new values, one after the other, beginning
       with another one each time, so that what else the machine does hits all alike; as many sets of values
       in a row as the settings say.
    3. The answers of the first round are compared with the reference, and with cvxfold on the CPU where they
       come from another device.
    """
    weights = weights_of(family, size, batch, settings.seed)
    contenders = [_Contender.of(peer, batch, settings) for peer in peers if peer.suits(family)]
    for one in contenders:  # 1
        with _guarded(one):
            _begin(one, family, size, weights, settings)
    for turn in range(settings.rounds):  # 2
        numbers = range(turn * settings.in_a_row, (turn + 1) * settings.in_a_row)
        row = [drawn(family, size, min(batch, DISTINCT), settings.seed, number) for number in numbers]
        start = turn % max(1, len(contenders))
        for one in [*contenders[start:], *contenders[:start]]:
            for values in row:
                if one.evaluate is not None and not (one.passes and one.spent > settings.time_limit):
                    with _guarded(one):
                        _turn(one, values, weights)
    everyones = min((one.count for one in contenders), default=batch)  # 3
    values = drawn(family, size, batch, settings.seed, 0)
    exact = truth(family, size, [v[:everyones] for v in values], [w[:everyones] for w in weights])
    host = on_host(family, size, values, weights) if torch.device(settings.device) != _CPU else None
    return BenchCell(
        family.name,
        size,
        batch,
        tuple(_measured(one, exact, host, settings.rounds * settings.in_a_row) for one in contenders),
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
    stated = family.state(size)
    layer, one.setup = timed(lambda: one.peer.layer(family, stated, settings.threads), _CPU)
    expected = _expected(one, layer, (family, size), weights, settings)
    if expected > settings.time_limit and one.device != torch.device(settings.device):
        one.count, expected = max(1, int(one.count * settings.time_limit / expected)), 0.0
    if expected > settings.time_limit:
        one.note = f"skipped: about {expected:.0f} s a pass"
        return
    values = one.given(drawn(family, size, min(one.batch, DISTINCT), settings.seed, _FIRST))
    weights = one.given(weights)
    forget()
    measured = measure(lambda: one_pass(layer, values, weights), one.device)
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
    """Seconds that a pass over the batch will take, from passes over a few instances, which also warm up.

    A GPU is taken to have room for all at once.
    """
    batch, limit, expected = one.count, settings.time_limit, 0.0
    for few in sorted({min(few, batch) for few in _FEW}):
        values, some = one.given(drawn(*of, few, settings.seed, _TRIAL), few), one.given(weights, few)
        seconds = one_pass(layer, values, some).seconds
        one.spent += seconds
        if one.first is None:
            one.first = seconds
        if seconds <= limit:  # else once more would not help
            seconds = one_pass(layer, values, some).seconds
            one.spent += seconds
        expected = seconds if one.device.type == "cuda" else seconds * batch / few
        if expected <= limit or seconds > limit:
            break
    return expected


def _turn(one: _Contender, values: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    assert one.evaluate is not None
    done = one_pass(one.evaluate, one.given(values), one.given(weights))
    if not one.passes:
        one.answer, one.engine = done, getattr(getattr(one.evaluate, "report", None), "engine", None)
    scale = one.batch / one.count
    one.passes.append(Pass([], [], done.forward * scale, done.backward * scale))
    one.spent += done.seconds


def _measured(one: _Contender, exact: CellTruth | str, host: CellTruth | None, wanted: int) -> Measurement:
    note, answer = one.note, one.answer
    if not note and len(one.passes) < wanted:
        note = f"{len(one.passes)} of {wanted} passes"
    if not one.is_whole and one.passes:
        scaled = f"{one.count} of {one.batch} instances, times {one.batch / one.count:.3g}"
        note = "; ".join(part for part in (note, scaled) if part)
    forward_error = gradient_error = host_error = None
    if answer is not None and isinstance(exact, CellTruth):
        forward_error = exact.forward_error(answer.outputs)
        gradient_error = exact.gradient_error(answer.gradients)
    if answer is not None and host is not None and one.is_whole:
        host_error = host.gradient_error(answer.gradients)
    if isinstance(exact, str):
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
        host_error=host_error,
        device=str(one.device),
        count=None if one.is_whole else one.count,
        engine=one.engine,
        note=note,
    )
