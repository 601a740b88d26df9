"""The tokenizer of SmolLM2, cut to its first words: what is large in it is the time that it takes."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

WORDS = 4096


def shortened(tokenizer: Any, folder: Path) -> Any:
    """A tokenizer of the first ``WORDS`` tokens: special tokens, bytes and the merges that were learned first."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = {word: i for word, i in table["model"]["vocab"].items() if i < WORDS}
    merges = [pair for pair in table["model"]["merges"] if "".join(pair) in vocabulary]
    table["model"] |= {"vocab": vocabulary, "merges": merges}
    file.write_text(json.dumps(table), encoding="utf-8")
    found = AutoTokenizer.from_pretrained(folder)
    assert len(found) == WORDS
    return found
