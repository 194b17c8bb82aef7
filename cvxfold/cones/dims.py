"""The sizes of the cones of a problem."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ConeDims:
    """Sizes of the cones of a problem, in the order of SCS.

    Args:
        zero: rows of the zero cone.
        nonnegative: rows of the nonnegative cone.
        second_order: size of each second-order cone.
        semidefinite: order k of each semidefinite cone, which has k (k + 1)/2 rows.
        exponential: number of exponential cones, of three rows each.
        power: α of each 3-d power cone.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[float, ...] = ()

    @property
    def rows(self) -> int:
        """m, the rows of all cones together."""
        return self.separable + sum(self.blocks)

    @property
    def separable(self) -> int:
        """Rows of the zero and the nonnegative cone, which come first."""
        return self.zero + self.nonnegative

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows of each non-separable cone."""
        semidefinite = (order * (order + 1) // 2 for order in self.semidefinite)
        return (*self.second_order, *semidefinite, *(3,) * (self.exponential + len(self.power)))

    def with_zero(self, zero: int) -> "ConeDims":
        """The same with another number of equalities."""
        return replace(self, zero=zero)
