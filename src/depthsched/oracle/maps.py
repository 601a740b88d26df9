"""Answers in the colour of the oracle: rows of the depth map."""

from __future__ import annotations

from typing import Any

from ..encoding import pieces
from ..text import ranges
from .depths import KINDS, Answer
from .result import OracleResult


def oracle_maps(result: OracleResult, tokenizer: Any, most: int = 2) -> list[dict[str, Any]]:
    """The first answers of a result, each once for each kind, as the depth map of a report reads them.

    Parameters
    ----------
    result : OracleResult
    tokenizer
        Of the model.
    most : int
        Answers.

    Returns
    -------
    list of dict
        ``plan`` (the order and the kind), ``prompt``, ``tokens``, ``pieces``, ``depths`` (the least one that agrees;
        the prefill's for the first token), ``agree`` (whether full depth would choose the token), ``notes`` (a line
        or more for each token), ``num_layers``.
    """
    bridges = " + bridges" if result.profile else ""
    return [
        {"plan": f"oracle {kind}, {result.order.partition(':')[0]}{bridges}", **_map(result, answer, kind, tokenizer)}
        for kind in KINDS
        for answer in result.answers[:most]
        if kind in answer.agree
    ]


def _map(result: OracleResult, answer: Answer, kind: str, tokenizer: Any) -> dict[str, Any]:
    tokens = list(answer.sample.completion)
    least, full = answer.least(kind).tolist(), result.num_layers
    return {
        "prompt": tokenizer.decode(answer.sample.prompt, skip_special_tokens=True),
        "num_layers": full,
        "tokens": tokens,
        "pieces": pieces(tokenizer, tokens),
        "depths": [full, *least],
        "agree": [True, *(top == token for top, token in zip(answer.top.tolist(), tokens[1:], strict=True))],
        "notes": [f"token 0, {full} of {full} layers (prefill)"]
        + [_note(answer, kind, i, tokenizer) for i in range(len(least))],
    }


def _note(answer: Answer, kind: str, at: int, tokenizer: Any) -> str:
    """What a reader who points at a token is told."""
    agreeing = [depth for depth, agrees in zip(answer.depths, answer.agree[kind][:, at], strict=True) if agrees]
    full = "" if answer.top[at] == answer.sample.completion[at + 1] else (
        f"\nfull depth: {tokenizer.decode([int(answer.top[at])])!r}"
    )  # fmt: skip
    return (
        f"token {at + 1}, least depth {agreeing[0]}, stable from {answer.stable(kind)[at]}\n"
        f"full depth's token at {ranges(agreeing)} of {answer.depths[-1]} layers\n"
        f"at full depth NLL {answer.nll[at]:.2f}, entropy {answer.entropy[at]:.2f} nats{full}"
    )
