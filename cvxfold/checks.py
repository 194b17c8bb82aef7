"""Options: tables of them, each written once with its type, default and check; and the checks.

Each check raises a ValueError with the name, what is expected and what was given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, get_args, get_type_hints


def require_positive(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def require_flag(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {value!r}")


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")


_ALIKE, _ALIKE_RATIO = 3, 0.7  # first letters, or share of all of them, that make two names alike


@dataclass(frozen=True)
class Option:
    """What stands beside an option's type in a TypedDict of options.

    Args:
        default: its value where it is not given.
        check: raises a ValueError for a name and a value that are not as they should be; None for no check.
    """

    default: Any
    check: Callable[[str, Any], None] | None = None


def optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    """A check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


def one_of(choices: Any) -> Callable[[str, Any], None]:
    """A check for the values of a Literal."""
    return lambda name, value: require_choice(name, value, get_args(choices))


def options_of(table: type) -> Mapping[str, Option]:
    """The options that a TypedDict lists, by name."""
    hints = get_type_hints(table, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def completed(options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given, and the defaults of those that were not.

    Raises:
        TypeError: there is no option of a name; the message names the nearest one.
    """
    for name in given:
        if name not in options:
            near = max(options, key=lambda one: _likeness(name, one))
            hint = f"; did you mean {near!r}?" if _likeness(name, near) >= (_ALIKE, 0) else ";"
            raise TypeError(f"unknown option {name!r}{hint} known are {sorted(options)}")
    return {name: option.default for name, option in options.items()} | dict(given)


def _likeness(name: str, other: str) -> tuple[float, float]:
    """How alike two names are: by how they begin, or else all in all."""
    letters = zip(name, other, strict=False)
    begins = next((i for i, (a, b) in enumerate(letters) if a != b), min(len(name), len(other)))
    ratio = SequenceMatcher(None, name, other).ratio()
    return (float(begins), ratio) if begins >= _ALIKE or ratio < _ALIKE_RATIO else (_ALIKE, ratio)


def checked(options: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Check the values of options, each by its own check.

    Raises:
        ValueError: one is not as it should be.
    """
    for name, option in options.items():
        if option.check is not None:
            option.check(name, values[name])
