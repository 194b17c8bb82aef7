"""How far work is: told to a function, or shown in a terminal or a notebook after two seconds.

A thread of its own looks from time to time, so that a long step is seen as well. Where there is neither a
terminal nor a notebook nothing is written.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

Progress = Callable[[str, int, int], None]
"""Told what is about to be done, how many steps are done, and of how many."""

PATIENCE = 2.0
"""Seconds before anything is shown."""

_INTERVAL = 0.5  # between looks


@dataclass(frozen=True)
class _Step:
    what: str = ""
    done: int = 0
    total: int | None = None


class _Surface(Protocol):
    """Where progress is shown."""

    def show(self, step: _Step, seconds: float) -> None:
        """Show how far it is."""
        ...

    def clear(self) -> None:
        """Leave nothing behind."""
        ...


@contextmanager
def told(progress: Progress | bool) -> Iterator[Progress]:
    """A function to tell how far work is, while it lasts.

    Args:
        progress: who is told; True for who looks at a terminal or a notebook, False for nobody.
    """
    surface = _surface() if progress is True else None
    if surface is None:
        yield progress if callable(progress) else lambda what, done, total: None
        return
    watch = _Watch(surface)
    try:
        yield watch.tell
    finally:
        watch.end()


class _Watch:
    """Shows the last step that was told, from the third second on, until the end."""

    def __init__(self, surface: _Surface) -> None:
        self._surface, self._step = surface, _Step()
        self._began, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="cvxfold-progress", daemon=True)
        self._thread.start()

    def tell(self, what: str, done: int, total: int) -> None:
        """Take note."""
        self._step = _Step(what, done, total)

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        if self._over.wait(PATIENCE):
            return
        while True:
            self._surface.show(self._step, time.monotonic() - self._began)
            if self._over.wait(_INTERVAL):
                break
        self._surface.clear()


def _surface() -> _Surface | None:
    """What there is to show something on; what it needs is imported before the work, which is timed."""
    if _is_notebook():
        return _Notebook()
    try:
        return _Terminal() if sys.stderr.isatty() else None
    except (AttributeError, ValueError):  # None, or closed
        return None


def _is_notebook() -> bool:
    """Whether a kernel runs this, with a front end that takes HTML."""
    if (ipython := sys.modules.get("IPython")) is None:
        return False
    return hasattr(ipython.get_ipython(), "kernel")


class _Terminal:
    """A line of the terminal's standard error that is erased in the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description:<25}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        console = Console(file=sys.stderr)
        self._bar = Bar(*columns, console=console, transient=True, auto_refresh=False)
        self._task: Any = None
        self._dumb = console.is_dumb_terminal

    def show(self, step: _Step, seconds: float) -> None:
        """Show how far it is."""
        if self._dumb:
            return
        if self._task is None:
            self._task = self._bar.add_task(step.what, completed=step.done, total=step.total)
            self._bar.tasks[0].start_time = self._bar.get_time() - seconds
            self._bar.start()
        self._bar.update(
            self._task, description=step.what, completed=step.done, total=step.total, refresh=True
        )

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._task is not None:
            self._bar.stop()


class _Notebook:
    """An output of the cell that is emptied in the end."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html, self._display = HTML, display
        self._handle: Any = None

    def show(self, step: _Step, seconds: float) -> None:
        """Show how far it is."""
        from cvxfold.display.html import block, line

        share = f"{step.done:,} of {step.total:,}" if step.total else ""
        text = ", ".join(part for part in (step.what, share, f"{seconds:.0f} s") if part)
        shown = self._html(block(line(text)))
        if self._handle is None:
            self._handle = self._display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._handle is not None:
            self._handle.update(self._html(""))
