"""RULER's needle in a repeated text (Hsieh et al. 2024, arXiv 2404.06654): lm-eval's code, with our tokenizer."""

from __future__ import annotations

import random
from typing import Any

SAMPLES = 500
SEED = 42


def niah_single_1(tokenizer: Any, tokens: int) -> dict[str, Any]:
    """The rows of ``niah_single_1`` at a length, the same ones at every call.

    lm-eval would load the tokenizer by name and trust the code it brings, and draws from the process's random numbers.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        Measures the text.
    tokens : int
        Length of a prompt with its answer.

    Returns
    -------
    dict
        ``{"test": dataset}``.
    """
    from datasets import Dataset
    from lm_eval.tasks.ruler.niah_utils import TEMPLATE
    from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack

    before = random.getstate()
    random.seed(SEED)
    try:
        rows = generate_samples(
            get_haystack(type_haystack="repeat"),
            max_seq_length=tokens,
            template=TEMPLATE,
            type_haystack="repeat",
            type_needle_k="words",
            type_needle_v="numbers",
            num_samples=SAMPLES,
            TOKENIZER=tokenizer,
        )
    finally:
        random.setstate(before)
    return {"test": Dataset.from_list(rows)}
