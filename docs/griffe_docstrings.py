"""How mkdocstrings reads our docstrings: Sphinx roles become code, ``setting(...)`` becomes its default."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|attr|mod):`~?([^`]+)`")


class DocstringsExtension(griffe.Extension):
    """Runs while griffe reads the sources; changes what it has read, never the sources."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(self._code, obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "setting":
            first = value.arguments[0] if value.arguments else None
            attr.value = None if isinstance(first, griffe.ExprKeyword) else first

    @staticmethod
    def _code(match: re.Match[str]) -> str:
        return f"`{match[1].removeprefix('depthsched.')}`"
