"""A tiny model with a vocabulary of words in a folder, prompts beside it, and grids on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..tiny import make_tiny

PROMPTS = [f"Tom has {i + 2} boxes with {i * i + 3} pens each. How many pens?" for i in range(5)]


def make_folder(folder: Path, tokenizer: Any) -> Path:
    """Model and prompts."""
    make_tiny("llama", "sdpa", vocab_size=len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in PROMPTS))
    return folder


def write_grid(folder: Path, name: str = "grid.yaml", **changes: Any) -> Path:
    """A grid of score cells; JSON is YAML."""
    grid = {
        "model": "./model",
        "prompts": "prompts.jsonl",
        "schedules": ["full", {"constant": {"depth": [5, 6, 7]}}, {"d3": {"alpha": [0.9, 0.95]}}],
        "orders": [None, "early-exit"],
        "dtype": "float32",
        "max_new_tokens": 8,
        "maps": 1,
    }
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in {**grid, **changes}.items() if value != "default"}))
    return path
