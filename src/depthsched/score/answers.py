"""Prompts as tokens, with a completion: a given one, or the model's own greedy answer at full depth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoding import encode, model_inputs
from ..files import cache_dir, cache_folder, digest, write_json
from ..fingerprint import weights_digest
from ..runtime.generate import generate
from ..work.cluster import Cluster, working
from ..work.pieces import Loaded
from .prompts import Prompt

Progress = Callable[[int, int], None]
BATCH, ACCELERATED_BATCH = 16, 128


@dataclass(frozen=True)
class Sample:
    """A prompt and its completion as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def own_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 128,
    batch: int | None = None,
    raw: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> list[Sample]:
    """Tokens of every prompt and its completion.

    Parameters
    ----------
    model, tokenizer
        As from :func:`depthsched.load_model`.
    prompts : sequence of Prompt
        A prompt without a completion gets the model's own greedy answer at full depth.
    max_new_tokens : int
        Length of an answer; a given completion is cut there too.
    batch : int, optional
        Prompts answered at once; left out, 16, and 128 on an accelerator.
    raw : bool
        Take the prompt as it stands, also where the tokenizer has a chat template.
    cache : bool
        Keep answers in the cache folder, by the content of model and prompt.
    progress : callable, optional
        Gets the number of answers ready and the number of all.
    cluster : Cluster, optional
        Spread the answering over its workers, ``batch`` prompts a piece; the model is one that
        :func:`depthsched.load_model` loaded.

    Returns
    -------
    list of Sample
        In the order of the prompts.

    Raises
    ------
    SettingsError
        A prompt has no tokens, or the cache folder cannot be made or written.
    """
    batch = batch or (BATCH if model.device.type == "cpu" else ACCELERATED_BATCH)
    ids = [encode(tokenizer, prompt.text, raw=raw) for prompt in prompts]
    given = [_encode_completion(tokenizer, prompt.completion) for prompt in prompts]
    store = _Store(model, max_new_tokens) if cache else None
    found = [own or (store.get(row) if store else None) for own, row in zip(given, ids, strict=True)]
    # Prompts of like length share a batch, so that little of it is padding.
    missing = sorted((i for i, answer in enumerate(found) if not answer), key=lambda i: len(ids[i]))
    if missing and store:
        cache_folder("answers")  # before the work, so that a folder that cannot be written costs none
    pieces = [missing[begin : begin + batch] for begin in range(0, len(missing), batch)]
    with working(model, tokenizer, cluster if missing else None) as work:
        answers = work.map(_answer, max_new_tokens, [[ids[i] for i in rows] for rows in pieces])
        left = len(missing)
        for rows, some in zip(pieces, answers, strict=True):
            for i, answer in zip(rows, map(tuple, some), strict=True):
                found[i] = answer
                if store:
                    store.put(ids[i], answer)
            left -= len(rows)
            if progress:
                progress(len(prompts) - left, len(prompts))
    return [Sample(row, (answer or ())[:max_new_tokens]) for row, answer in zip(ids, found, strict=True)]


def _encode_completion(tokenizer: Any, text: str | None) -> tuple[int, ...] | None:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text is not None else None


def _answer(loaded: Loaded, max_new_tokens: int, prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    model = loaded.model
    run = generate(
        model,
        model_inputs(prompts),
        "full",
        max_new_tokens=max_new_tokens,
        do_sample=False,
        backend="eager",
    )
    return [until_end(row, end_tokens(model)) for row in run.tokens.tolist()]


def end_tokens(model: Any) -> frozenset[int]:
    """The tokens that end an answer of a model."""
    end = model.generation_config.eos_token_id
    return frozenset(end if isinstance(end, list) else [] if end is None else [end])


def until_end(row: Sequence[int], ends: frozenset[int]) -> tuple[int, ...]:
    """The tokens of an answer, its end token included."""
    for i, token in enumerate(row):
        if token in ends:
            return tuple(row[: i + 1])
    return tuple(row)


class _Store:
    """Answers on disk, one file each, named by what they depend on."""

    def __init__(self, model: Any, max_new_tokens: int) -> None:
        self.folder = cache_dir() / "answers"
        dtype = str(next(model.parameters()).dtype)
        self.key = f"{weights_digest(model)} {dtype} {max_new_tokens} greedy"

    def _path(self, prompt: Sequence[int]) -> Path:
        name = digest(f"{self.key} {list(prompt)}", 34)
        return self.folder / name[:2] / f"{name[2:]}.json"

    def get(self, prompt: Sequence[int]) -> tuple[int, ...] | None:
        try:
            return tuple(int(token) for token in json.loads(self._path(prompt).read_text()))
        except (OSError, ValueError, TypeError):
            return None  # absent or damaged: answer again

    def put(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        write_json(self._path(prompt), list(answer))
