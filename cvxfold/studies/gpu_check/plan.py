"""What is done, in the order of importance, and how long each part may take."""

from dataclasses import dataclass, field
from typing import Any

from cvxfold.studies.bench.peers import OURS, THEIRS

FIRST = ("portfolio", "mpc", "dense-qp")
THEN = ("tv", "multi-label", "robust-portfolio", "transport")
TOGETHER = (OURS, THEIRS)
PEERS = ("qpth", "qpax", "moreau", "pinet")
"""Others, each in a part of its own, so that one that takes long or dies takes nobody along."""
MAIN, OTHERS = 4_096, (65_536, 64, 16_384, 1_024, 1)
"""Instances of a batch: the one that everybody is measured on, and those for cvxfold alone."""

_TINY_SIZE, _TINY, _TINY_OTHERS = 4, 8, (2,)  # for machines without a GPU, where the run is only tried


@dataclass(frozen=True)
class Part:
    """One part of the run.

    Args:
        kind: a function of the worker, or ``"tests"``, which are a process of their own.
        name: in the record and the table.
        limit: seconds after which it is ended. needs: seconds without which it is not begun.
        arguments: of the function.
    """

    kind: str
    name: str
    limit: float
    needs: float = 3.0
    arguments: dict[str, Any] = field(default_factory=dict)


def plan(device: str, tiny: bool) -> list[Part]:
    """All parts.

    Args:
        device: where the values are.
        tiny: problems and batches of a few, and no tests: to try the run itself.
    """
    size, main, others = (_TINY_SIZE, _TINY, _TINY_OTHERS) if tiny else (None, MAIN, OTHERS)
    first, then = (FIRST[:1], ()) if tiny else (FIRST, THEN)
    peers = () if tiny else PEERS
    steps = [Part("facts", "machine", 90, arguments={"device": device})]
    if not tiny:
        steps.append(Part("tests", "tests", 90, 10))
    if device.startswith("cuda"):
        steps.append(Part("kernels", "kernels", 90, 10, {"device": device}))

    def waits(family: str, batch: int) -> Part:
        given = {"family": family, "size": size, "batch": batch, "device": device}
        return Part("waits", f"waits {family} {batch}", 90, 5, given)

    def cell(family: str, batch: int, *names: str, profile: bool = False) -> Part:
        given = {"family": family, "size": size, "batch": batch, "device": device, "peers": names}
        title = " ".join(("bench", family, str(batch), *(name for name in names if name not in TOGETHER)))
        return Part("cell", title, 60, 5, given | {"profile": profile, "time_limit": 4.0})

    steps += [waits(family, main) for family in first[:1]]
    steps.append(Part("floors", "floors", 30, arguments={"device": device}))
    steps += [cell(family, main, *TOGETHER, profile=True) for family in first]
    steps += [waits(family, main) for family in first[1:]]
    steps += [cell(family, main, *TOGETHER, profile=True) for family in then]
    steps += [cell(family, main, name) for name in peers for family in first if name != "pinet"]
    steps += [cell("transport", main, name) for name in peers if name == "pinet"]
    steps += [cell(family, batch, OURS) for batch in others for family in first]
    steps += [waits(family, main) for family in then]
    steps += [cell(family, batch, OURS) for batch in others for family in then]
    return steps
