"""What depth costs: unrolling keeps every iteration, folding keeps one.

Time and peak memory of one forward and backward pass against K, model predictive control: unrolled from the
solution, the same with checkpoints every √K iterations, K steps of LFPI, and, for scale, GMRES and the direct
method at full accuracy, whatever K. Memory is what tensors hold at the peak.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from study import COLOURS, Case, arguments, axes, case, evaluate, finish, make_layer, table

from cvxfold.fold import GMRES, LFPI, Unrolled
from cvxfold.studies.allocations import peak_bytes

PENALTY = 0.5
LABELS = {
    "unrolled": ("unrolled", COLOURS["backward"], "o-"),
    "checkpointed": ("unrolled, checkpoints every √K", COLOURS["accent"], "s-"),
    "lfpi": ("folded, LFPI, K steps", COLOURS["folded"], "o-"),
    "gmres": ("folded, GMRES to 1e-9", COLOURS["other"], "--"),
    "direct": ("folded, direct", COLOURS["forward"], "--"),
}


@dataclass(frozen=True)
class Costs:
    """Depths; by method, seconds and bytes of a forward and a backward pass; LFPI's median residual."""

    depths: list[int]
    seconds: dict[str, list[float]]
    megabytes: dict[str, list[float]]
    residual: dict[int, float]


def method(name: str, depth: int) -> dict[str, Any]:
    """The layer's options for a method at a depth."""
    if name == "unrolled":
        return {"backward": Unrolled(depth)}
    if name == "checkpointed":
        return {"backward": Unrolled(depth, checkpoint_every=max(1, round(math.sqrt(depth))))}
    if name == "lfpi":
        return {"backward": LFPI(), "backward_max_iters": depth, "backward_tol": 1e-300}
    return {"backward": GMRES() if name == "gmres" else "direct"}


def measure(truth: Case, depths: list[int], repeats: int) -> Costs:
    """Time and memory of each method at each depth."""
    seconds: dict[str, list[float]] = {name: [] for name in LABELS}
    megabytes: dict[str, list[float]] = {name: [] for name in LABELS}
    residual: dict[int, float] = {}
    for name in LABELS:
        for depth in depths if name in ("unrolled", "checkpointed", "lfpi") else depths[:1]:
            layer = make_layer(truth, penalty=PENALTY, on_unconverged="ignore", **method(name, depth))
            run = lambda layer=layer: evaluate(layer, truth)  # noqa: E731
            run()  # the first call factors, compiles and allocates what later ones keep
            seconds[name].append(shortest(run, repeats))
            megabytes[name].append(peak_bytes(run, torch.device("cpu")) / 1e6)
            if name == "lfpi":
                assert layer.report is not None
                assert layer.report.backward is not None
                residual[depth] = float(layer.report.backward.residual.median())
    return Costs(depths, seconds, megabytes, residual)


def shortest(function: Callable[[], Any], repeats: int) -> float:
    """The shortest wall time of a few calls: others may be using the machine."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main(argv: Sequence[str] | None = None) -> Costs:
    """Measure, print, draw."""
    args = arguments("time_and_memory", __doc__, argv)
    batch, depths, repeats = 64, [10, 20, 40, 80, 160, 320, 640], 7
    if args.quick:
        batch, depths, repeats = 16, [80, 160, 320], 1  # below, the report takes more than the tape
    found = measure(case("mpc", batch), depths, repeats)

    def cell(name: str, i: int) -> str:
        return f"{1000 * found.seconds[name][i]:.0f} ms, {found.megabytes[name][i]:.1f} MB"

    table(
        f"forward and backward pass of {batch} instances of model predictive control",
        ["K", "unrolled", "checkpoints every √K", "LFPI", "residual after K"],
        [
            [
                str(k),
                cell("unrolled", i),
                cell("checkpointed", i),
                cell("lfpi", i),
                f"{found.residual[k]:.0e}",
            ]
            for i, k in enumerate(depths)
        ],
    )
    print(f"to 1e-9: GMRES {cell('gmres', 0)}; direct {cell('direct', 0)}")
    draw(found, args.output)
    return found


def draw(found: Costs, output: Path) -> None:
    """Time on the left, memory on the right."""
    figure, grid = axes(1, 2, 3.9)
    ends = (found.depths[0], found.depths[-1])
    for ax, values, scale in ((grid[0, 0], found.seconds, 1000), (grid[0, 1], found.megabytes, 1)):
        for name, (label, colour, style) in LABELS.items():
            y = [scale * v for v in values[name]]
            x, y = (found.depths, y) if len(y) > 1 else (ends, (y[0], y[0]))
            ax.loglog(x, y, style, color=colour, label=label, markersize=4)
        ax.set_xlabel("depth, K")
    grid[0, 0].set(title="time", ylabel="ms, forward and backward")
    grid[0, 1].set(title="memory", ylabel="MB at the peak")
    grid[0, 0].set_ylim(top=20 * grid[0, 0].get_ylim()[1])
    grid[0, 0].legend(loc="upper left", fontsize=8)
    finish(figure, output)


if __name__ == "__main__":
    main()
