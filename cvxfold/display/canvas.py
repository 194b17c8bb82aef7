"""The figure that plots are drawn on; importing this imports matplotlib."""

from io import BytesIO

from matplotlib.figure import Figure

_DPI = 100


class ShownFigure(Figure):
    """A figure of no window that a notebook shows, whether ``matplotlib.pyplot`` was imported or not."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()
