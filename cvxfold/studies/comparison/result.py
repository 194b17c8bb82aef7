"""A comparison as it is handed to the user: its findings, in words, as a table, a plot or a dictionary."""

from typing import Any

from rich.console import Group

from cvxfold.studies.comparison import record, show, verdict
from cvxfold.studies.comparison.findings import Findings
from cvxfold.studies.comparison.plot import draw


class Comparison(Findings):
    """Findings that can be shown."""

    @property
    def verdict(self) -> str:
        """Who is right, in words."""
        return verdict.words(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it in numbers, strings and lists, for JSON; a number that is not finite as a string."""
        return record.of(self)

    def plot(self, path: Any = None) -> Any:
        """Draw differences, residuals and errors by finite differences as bars, one for each contestant.

        Args:
            path: where to save it, if anywhere.

        Returns:
            The matplotlib figure.

        Raises:
            ModuleNotFoundError: matplotlib is missing.
        """
        return draw(self, path)

    def __rich__(self) -> Group:
        return Group(show.table(self), self.verdict)

    def _repr_html_(self) -> str:
        return show.html(self)

    def __str__(self) -> str:
        return show.text(self)
