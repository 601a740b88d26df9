"""What the text of a token is: a word, its continuation, a digit, ..."""

from __future__ import annotations

from typing import Any

from ..errors import PlanError

_BROKEN = "\ufffd"  # what part of a character decodes to


class TextClasses:
    """The class of a token, one of :data:`depthsched.signals.TEXT_CLASSES`.

    The first that fits: ``special`` (what the tokenizer calls so, or an id that it does not have), ``newline`` (a line
    break in it), ``space`` (nothing but white space, or no text), ``digit`` (there is one in it),
    ``punctuation`` (no letter in it), ``word`` (begins with a space, or follows a token that ends in no letter),
    ``continuation``. Part of a character counts as a letter, so that the later pieces of one are continuations.

    Parameters
    ----------
    tokenizer
        Of transformers.

    Raises
    ------
    PlanError
        It has no token for a letter.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        # A piece on its own loses the space that it begins with in some tokenizers: it is read after a letter.
        self._before: list[int] = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        self._length = len(self._decode(self._before))
        if not self._length:
            raise PlanError("the classes of tokens need a tokenizer of text, and this one has no token for a letter")
        self._texts: dict[int, str] = {}

    def __call__(self, token: int, before: int | None) -> str:
        """The class of a token after another one; ``before`` is None where nothing is known to stand there."""
        text = self._text(token)
        if token in self.special or not 0 <= token < len(self.tokenizer):
            return "special"
        if "\n" in text:
            return "newline"
        if not text.strip():
            return "space"
        if any(c.isdigit() for c in text):
            return "digit"
        if not any(map(_letter, text)):
            return "punctuation"
        follows = before is not None and before not in self.special and _letter(self._text(before)[-1:])
        return "continuation" if follows and not text[0].isspace() else "word"

    def _text(self, token: int) -> str:
        if token not in self._texts:
            known = 0 <= token < len(self.tokenizer)
            self._texts[token] = self._decode([*self._before, token])[self._length :] if known else ""
        return self._texts[token]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _letter(character: str) -> bool:
    return character.isalpha() or character == _BROKEN
