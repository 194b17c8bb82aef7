"""Benchmarks of fake peers: wrong ones are shown so, broken ones do not end it, slow ones are skipped."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from cvxfold.studies.bench import show
from cvxfold.studies.bench.families.family import Family, Stated
from cvxfold.studies.bench.families.table import FAMILIES
from cvxfold.studies.bench.machine import limited, rates
from cvxfold.studies.bench.passes import drawn
from cvxfold.studies.bench.peers import PEERS, USUAL, Cvxfold, Peer, peers
from cvxfold.studies.bench.plot import draw
from cvxfold.studies.bench.profile import STAGES, multiply_adds
from cvxfold.studies.bench.result import BenchResult
from cvxfold.studies.bench.run import bench
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.torch import CvxpyLayer

TINY = BenchSettings(families=("portfolio",), sizes=(5,), batches=(2,), rounds=2, threads=1)


@dataclass(frozen=True)
class FakePeer:
    """cvxfold, with something done to its outputs."""

    name: str
    change: Any
    missing: str | None = None
    warm: bool = False
    by_sample: bool = False
    on_device: bool = True
    calls: list[tuple[int, ...]] = field(default_factory=list)

    def suits(self, family: Family) -> bool:
        return True

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Any:
        layer = Cvxfold().layer(family, stated, threads)

        def evaluate(*params: Tensor) -> list[Tensor]:
            self.calls.append(tuple(params[0].shape))
            return [self.change(output) for output in layer(*params)]

        return evaluate


def broken(output: Tensor) -> Tensor:
    raise RuntimeError("on purpose")


class Slow(FakePeer):
    """No solver at all: 50 ms an instance."""

    def layer(self, family: Family, stated: Stated, threads: int | None) -> Any:
        def evaluate(*params: Tensor) -> list[Tensor]:
            self.calls.append(tuple(params[0].shape))
            time.sleep(0.05 * len(params[0]))
            return [1.0 * params[0]]

        return evaluate


def shown(result: BenchResult) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(show.table(result))
    console.print(show.summary(result))
    return console.export_text()


@pytest.fixture(scope="module")
def result() -> BenchResult:
    others: list[Peer] = [
        FakePeer("right", lambda output: output),
        FakePeer("off", lambda output: output + 1e-3),
        FakePeer("bent", lambda output: output + 1e-3 * (output - output.detach())),
        FakePeer("broken", broken),
        FakePeer("absent", broken, missing="it is not installed"),
    ]
    return bench(TINY, [Cvxfold(), *others])


def test_who_is_wrong(result: BenchResult) -> None:
    (cell,) = result.cells
    correct = {one.peer: one.correct for one in cell.measurements}
    assert correct == {"cvxfold": True, "right": True, "off": False, "bent": False, "broken": None}
    off, bent = cell.of("off"), cell.of("bent")
    assert off is not None
    assert bent is not None
    assert (off.forward_error or 0) > 1e-4 > (off.gradient_error or 1)
    assert (bent.gradient_error or 0) == pytest.approx(1e-3, rel=1e-3)
    assert (bent.forward_error or 0) < 1e-8
    assert cell.fastest_correct is cell.of("right")
    assert cell.checked == 2
    broken = cell.of("broken")
    assert broken is not None
    assert broken.note == "fails: RuntimeError: on purpose"


def test_what_is_shown(result: BenchResult) -> None:
    lines = {line.split()[0]: line for line in shown(result).splitlines() if line.strip()}
    assert "wrong" in lines["off"]
    assert "wrong" in lines["bent"]
    assert "wrong" not in lines["right"]
    assert "fastest correct peer" in lines["right"]
    assert "fails: RuntimeError: on purpose" in lines["broken"]
    assert lines["absent:"].strip() == "absent: skipped: it is not installed"


def test_everybody_is_given_the_same_values_in_turns() -> None:
    order: list[tuple[str, float]] = []
    names = ("one", "two", "three")

    def noted(name: str) -> FakePeer:
        return FakePeer(name, lambda output: order.append((name, float(output.sum(0)[0]))) or output)

    bench(TINY, [noted(name) for name in names])
    rounds = [order[-6:-3], order[-3:]]
    assert [[name for name, _ in one] for one in rounds] == [["one", "two", "three"], ["two", "three", "one"]]
    values = [{value for _, value in one} for one in rounds]
    assert all(max(one) - min(one) < 1e-9 for one in values)
    assert abs(min(values[0]) - min(values[1])) > 1e-6  # new ones in each round


def test_several_passes_in_a_row() -> None:
    order: list[tuple[str, float]] = []

    def noted(name: str) -> FakePeer:
        return FakePeer(name, lambda output: order.append((name, float(output.sum(0)[0]))) or output)

    (cell,) = bench(replace(TINY, in_a_row=3), [noted("one"), noted("two")]).cells
    assert [name for name, _ in order[-12:]] == ["one"] * 3 + ["two"] * 6 + ["one"] * 3
    first, second = [value for _, value in order[-12:-9]], [value for _, value in order[-9:-6]]
    assert first == pytest.approx(second, abs=1e-9)
    assert len({round(value, 6) for value in first}) == 3
    assert [one.rounds for one in cell.measurements] == [6, 6]


def test_the_time_limit() -> None:
    settings = BenchSettings(families=("portfolio",), sizes=(5,), batches=(1, 64), rounds=20, time_limit=0.2)
    peer = Slow("slow", None)
    few, many = bench(settings, [peer]).cells
    (one,), (other,) = few.measurements, many.measurements
    assert 1 <= one.rounds < 20
    assert one.note == f"{one.rounds} of 20 passes"
    assert other.rounds == 0
    assert other.note.startswith("skipped: about")
    assert max(shape[0] for shape in peer.calls) < 64


def test_another_device() -> None:
    """``cpu:0`` is another name of the CPU, and so another device, to all who compare names."""
    settings = replace(TINY, batches=(12,), device="cpu:0", most_on_host=4)
    host, bent = FakePeer("host", lambda output: output, on_device=False), FakePeer("bent", bend_the_last)
    (cell,) = bench(settings, [Cvxfold(), host, bent]).cells
    ours, there, last = (cell.of(name) for name in ("cvxfold", "host", "bent"))
    assert ours is not None
    assert there is not None
    assert last is not None
    assert (ours.device, ours.count, there.device, there.count) == ("cpu:0", None, "cpu", 4)
    assert there.note == "4 of 12 instances, times 3"
    assert {shape[0] for shape in host.calls} <= {1, 4}
    assert ours.correct is there.correct is True
    assert (ours.host_error or 0) < 1e-9
    assert there.host_error is None
    assert last.correct  # since only the first four were compared with the reference
    assert last.host_error == pytest.approx(1e-3, rel=1e-2)
    assert "1e-03 from CPU's" in shown(bench(settings, [Cvxfold(), bent]))


def bend_the_last(output: Tensor) -> Tensor:
    """The last gradient is off by a thousandth."""
    scale = torch.ones(len(output), 1, dtype=output.dtype)
    scale[-1] = 1 + (1e-3 if len(output) > 8 else 0)
    return output.detach() + scale * (output - output.detach())


def test_large_batches_repeat() -> None:
    (mean, _), (few, _) = (drawn(FAMILIES["portfolio"], 3, batch, 0, 0) for batch in (4100, 4096))
    assert len(mean) == 4100
    assert torch.equal(mean[4096:], few[:4])


def test_profile() -> None:
    result = bench(replace(TINY, profile=True), [Cvxfold()])
    (cell,) = result.cells
    assert cell.profile is not None
    assert list(cell.profile) == list(STAGES)
    assert all(seconds >= 0 for seconds in cell.profile.values())
    assert cell.profile["engine: solve"] > 0
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(show.profile_table(result))
    assert "engine: solve" in console.export_text()


def test_multiply_adds() -> None:
    """Of a dense program at least those of its dense Cholesky factor, n³/6."""
    stated = FAMILIES["dense-parameter"].state(30)
    layer = CvxpyLayer(stated.problem, stated.parameters, stated.variables)
    assert 30**3 / 6 <= multiply_adds(layer._canonical.structure) <= 60**3
    found = rates(torch.device("cpu"))
    assert found.bandwidth > 0 < found.multiply_adds


def test_training() -> None:
    result = bench(replace(TINY, training=3), [Cvxfold(), PEERS["cvxpylayers"]])
    (row,) = result.training  # cvxpylayers' default has no warm start
    assert (row.peer, row.steps, row.note) == ("cvxfold", 3, "")
    assert row.difference is not None
    assert row.difference < 1e-8
    assert row.gain_shuffled is not None
    assert not result.cells


def test_plot(result: BenchResult) -> None:
    pytest.importorskip("matplotlib")
    figure = draw(result)
    assert [ax.get_title() for ax in figure.axes] == ["portfolio"]
    assert figure.axes[0].get_xlabel() == "relative error of the gradient"


def test_names_of_peers() -> None:
    assert [peer.name for peer in peers(None)] == list(USUAL)
    assert [peer.name for peer in peers(["moreau"])] == ["cvxfold", "moreau"]
    with pytest.raises(ValueError, match=r"expected one of cvxfold, cvxpylayers, .* got 'none'"):
        peers(["none"])


@pytest.mark.parametrize("name", [name for name in PEERS if name != "cvxfold"])
def test_the_peers_that_are_here(name: str) -> None:
    peer = PEERS[name]
    if peer.missing is not None:
        pytest.skip(peer.missing)
    (cell,) = bench(TINY, [Cvxfold(), peer]).cells
    one = cell.of(name)
    assert one is not None
    assert one.rounds == 2
    if name.endswith(("-tight", "-dense")):
        assert (one.forward_error or 0) < 1e-6


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with limited(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
