"""The one door through which text reaches the page."""

from __future__ import annotations

import unicodedata

import markupsafe

# Control, format (the marks of writing direction are of this kind), surrogates, private use, line separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # words of several scripts, and emoji, need them; they move nothing


def visible(text: str, keep: str = "\n\t") -> str:
    """The text with every character that is not seen, or that changes how others are, written as ``⟨U+202E⟩``.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay as they are.
    """
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in _HIDDEN and c not in keep + _JOINERS else c for c in text
    )


def safe(value: object, keep: str = "\n\t") -> str:
    """Any text of a model, a prompt, a setting or a file as HTML that shows it and does nothing else.

    Fit for the content of an element and for an attribute in quotes.
    """
    return str(markupsafe.escape(visible(str(value), keep)))
