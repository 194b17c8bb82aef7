"""An extension of griffe: roles in docstrings, such as :class:`Report`, become code, an example a section."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]+)`")


class Roles(Extension):
    """Rewrites the docstrings of everything that is read.

    A section called ``Example``, of one alone, is to griffe a box of prose; ``Examples`` it shows as code.
    """

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called with each module, class, function and attribute."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
