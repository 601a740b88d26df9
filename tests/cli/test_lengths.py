"""Prompts that the model has no positions for, from the shell."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_prompt_longer_than_the_models_positions(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("one two three four five six seven eight nine ten " * 900)
    done = cli("generate", "--prompt-file", str(file), "--max-new-tokens", "4")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "positions; shorten the prompt" in done.err
