"""The run as a short text, for a console or a log of which only the end is kept."""

from collections.abc import Callable, Iterator
from typing import Any

from cvxfold.studies.bench.families.table import FAMILIES
from cvxfold.studies.bench.peers import OURS
from cvxfold.studies.gpu_check.plan import FIRST, MAIN

_MOST_FAILURES, _MOST_PLACES, _MOST_KERNELS = 8, 4, 3
_LINE = 150


def text(found: dict[str, Any]) -> str:
    """Everything that matters in at most some hundred lines."""
    steps = found["steps"]
    lines = [f"GPU check on {found['device']}, {found.get('seconds')} s of {found['asked_seconds']:.0f} s"]
    done = [step for step in steps if step["status"] == "done"]

    def shown(kind: str, show: Callable[[dict[str, Any]], Iterator[str]]) -> list[str]:
        return [line[:_LINE] for step in done if step["kind"] == kind for line in show(step)]

    lines += shown("waits", _waits)
    lines += _bench([step["result"] for step in done if step["kind"] == "cell"])
    lines += [*shown("facts", _facts), *shown("kernels", _kernels), *shown("floors", _floors)]
    lines += shown("tests", _tests)
    lines += _not_done(steps)
    return "\n".join(lines)


def _facts(step: dict[str, Any]) -> Iterator[str]:
    found = step["result"]
    yield f"{found['device']}; {found['nvidia_smi'] or 'no nvidia-smi'}; NVRTC {found['nvrtc']}"
    engine = found["engine_on_the_cpu"] or found["why_not_lanes"]
    yield f"{found['processor']}, {found['cores_allowed']} cores; on the CPU: {engine}"
    yield " ".join(f"{name} {number}" for name, number in found["versions"].items())


def _kernels(step: dict[str, Any]) -> Iterator[str]:
    found = step["result"]
    sizes = (f"{name} {registers}, {kept} B" for name, (registers, kept) in found["kernels"].items())
    yield f"kernels ready after {found['seconds']:.1f} s; registers, bytes in memory: {'; '.join(sizes)}"


def _tests(step: dict[str, Any]) -> Iterator[str]:
    found = step["result"]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.get("counts", {}).items())
    yield f"tests: {found['ended']}; {counts or 'none'}; {found.get('seconds', 0):.0f} s"
    for one in found.get("failures", [])[:_MOST_FAILURES]:
        last = [line for line in one["text"].splitlines() if line.startswith("E ")] or one[
            "text"
        ].splitlines()
        yield f"  {one['test']}: {' '.join(last[:1])[:90]}"
    if "tail" in found:
        yield from (f"  | {line}" for line in found["tail"].splitlines()[-6:])


def _floors(step: dict[str, Any]) -> Iterator[str]:
    found = step["result"]
    yield (
        f"floors: copy {found['bytes_a_second'] / 1e9:.0f} GB/s (read and written); float64 product "
        f"{2 * found['multiply_adds_a_second'] / 1e12:.2f} TFLOP/s; "
        f"launch {1e6 * found['seconds_a_launch']:.1f} µs; wait {1e6 * found['seconds_a_wait']:.1f} µs"
    )


def _waits(step: dict[str, Any]) -> Iterator[str]:
    found = step["result"]
    for way in ("forward", "backward"):
        one = found[way]
        yield (
            f"{step['name']}, {way}, {found['engine']}: {1e3 * one['seconds']:.2f} ms, kernels "
            f"{1e3 * one['kernel_seconds']:.2f} ms, {one['launches']} launches, {one['copies']} copies, "
            f"{one['runtime_waits']} waits ({sum(one['waits'].values())} by PyTorch), "
            f"{one['operations']} operations"
        )
        if step["arguments"].get("family") not in FIRST:
            continue  # the record has it all, and the end of a log has not room for everything
        places = list(one["waits"].items())[:_MOST_PLACES]
        if places:
            yield "    waits: " + ", ".join(f"{place} ×{count}" for place, count in places)
        for name, count, seconds in one["kernels"][:_MOST_KERNELS]:
            yield f"    {1e3 * seconds:9.3f} ms ×{count:<5} {name[:60]}"


_HEADINGS = (
    f"{'bench':<24}{'batch':>7} {'forward':>9} {'backward':>9} {'total ms':>9} {'per second':>10} "
    f"{'error':>7} {'CPU’s':>7} {'floor':>7} {'times':>7}  note"
)


def _bench(cells: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each peer: milliseconds, instances a second, errors of the gradient, times ours."""
    every = [(cell, one) for cell in cells for one in cell["measurements"]]
    ours = {(cell["family"], cell["batch"]): one for cell, one in every if one["peer"] == OURS}
    if cells:
        yield _HEADINGS
    for cell in sorted(
        cells, key=lambda cell: (-(cell["batch"] == MAIN), list(FAMILIES).index(cell["family"]))
    ):
        for one in cell["measurements"]:
            name = cell["family"] if one["peer"] == OURS else f"  {one['peer']} ({one['device']})"
            base = ours.get((cell["family"], cell["batch"]), {}).get("total_seconds")
            total, profile = one["total_seconds"], (cell.get("profile") or {}) if one["peer"] == OURS else {}
            floor = max((s for stage, s in profile.items() if stage.startswith("floor")), default=None)
            wrong = "wrong" if one["correct"] is False else ""
            first = f"first call {one['first_seconds']:.1f} s" if (one["first_seconds"] or 0) > 1 else ""
            yield (
                f"{name:<24}{cell['batch']:>7} {_ms(one['forward_seconds'])} {_ms(one['backward_seconds'])} "
                f"{_ms(total)} {_short(one['instances_a_second']):>10} {_short(one['gradient_error']):>7} "
                f"{_short(one['host_error']):>7} {_short(floor and 1e3 * floor):>7} "
                f"{_short(total and base and total / base):>7}  "
                + "; ".join(part for part in (wrong, one["engine"], first, str(one["note"])[:90]) if part)
            )
        stages = {name: s for name, s in (cell.get("profile") or {}).items() if not name.startswith("floor")}
        if stages and cell["family"] in FIRST:
            yield "    stages, ms: " + ", ".join(f"{name} {1e3 * s:.3g}" for name, s in stages.items())


def _not_done(steps: list[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        if step["status"] not in ("done", "no time"):
            last = str(step["result"]).strip().splitlines()[-1:] or [""]
            yield f"{step['name']}: {step['status']}: {last[0]}"[:_LINE]
    late = [step["name"] for step in steps if step["status"] == "no time"]
    if late:
        yield f"no time for: {', '.join(late)}"


def _ms(seconds: float | None) -> str:
    return f"{'-' if seconds is None else f'{1e3 * seconds:.4g}':>9}"


def _short(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.0e}" if 0 < value < 1e-2 else f"{value:.3g}" if value < 1e5 else f"{value:.2e}"
