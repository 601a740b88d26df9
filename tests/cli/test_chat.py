"""The chat: turns through a pipe, plans that change between them, and what goes wrong in one line."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.cli import chat as chat_module
from depthsched.conversation import Conversation

from ..commands import Result
from ..tiny import make_tiny

Chat = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: tuple[Any, Any]) -> Path:
    """A tiny model with the tokenizer of SmolLM2, and its chat template."""
    path = tmp_path_factory.mktemp("tiny")
    model = make_tiny("llama", "sdpa", vocab_size=len(smollm2[1]), max_position_embeddings=512)
    model.save_pretrained(path)
    smollm2[1].save_pretrained(path)
    return path


@pytest.fixture
def chat(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    def run(lines: str, *args: object, model: object = folder) -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return cli("chat", "--model", model, "--max-new-tokens", 12, *args)

    return run


def test_turns_and_plans(chat: Chat) -> None:
    done = chat("One?\n/schedule constant:depth=5\nTwo?\n\n/full\nThree?\n/quit\nFour?\n", "--json")
    assert done.code == 0
    turns = done.json()["turns"]
    assert [turn["question"] for turn in turns] == ["One?", "Two?", "Three?"]
    assert [turn["schedule"] for turn in turns] == ["d3", "constant:depth=5", "full"]
    assert [turn["depths"] for turn in turns][1:] == [[8, *[5] * 11], [8] * 12]
    assert turns[0]["held_tokens"] == 0
    assert turns[1]["held_tokens"] >= turns[0]["prompt_tokens"]
    for turn in turns:
        assert turn["read_tokens"] + turn["held_tokens"] == turn["prompt_tokens"]


@pytest.mark.parametrize("rules", [[], ["--skipped-kv", "recompute"], ["--verify-below", 0.2], ["--renew", "sentence"]])
def test_every_answer_is_that_of_a_fresh_run(chat: Chat, folder: Path, rules: list[object]) -> None:
    schedule = "confidence:depth=5,margin=0.0002"
    lines = "What is it?\nAnd then?\nWhy is that so?\n"
    turns = chat(lines, "--schedule", schedule, "--dtype", "float32", *rules, "--json").json()["turns"]
    model, tokenizer = ds.load_model(str(folder), dtype="float32")
    options: dict[str, Any] = {}
    if rules:
        name = str(rules[0]).removeprefix("--").replace("-", "_")
        options = {name: rules[1], "tokenizer": tokenizer}
    messages: list[dict[str, str]] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn["question"]})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        run = ds.generate(model, ids, schedule, max_new_tokens=12, do_sample=False, **options)
        assert run.tokens[0].tolist() == turn["tokens"]
        assert run.trace.depths == turn["depths"]
        messages.append({"role": "assistant", "content": turn["text"]})


def test_what_a_person_sees(chat: Chat) -> None:
    done = chat("One?\n/schedule\n/help\n", "--schedule", "constant:depth=5", "--renew", 4)
    assert done.code == 0
    assert "[constant:depth=5] depth 5." in done.out
    assert "of 8" in done.out
    assert "tokens, " in done.out
    assert "passes at full depth renewed" in done.out
    assert "constant:depth=5 @ middle-out" in done.err
    assert all(word in done.err for word in ("/schedule SPEC", "/full", "/help", "/quit"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/schedule nosuch:x=1", "unknown schedule 'nosuch'"),
        ("/schedule constant:depth=0", "depth"),
        ("/schedule full@nosuch", "nosuch"),
        ("/schedule d3:min_depth=99", "min_depth=99 is more than the model's 8 layers"),
        ("/nosuch", "unknown command /nosuch; /help lists them"),
        ("long " * 600, "shorten the prompt"),
    ],
)
def test_a_bad_line_is_one_line_and_the_chat_goes_on(chat: Chat, line: str, words: str) -> None:
    done = chat(f"One?\n{line}\nTwo?\n", "--schedule", "constant:depth=5", "--json")
    assert done.code == 0
    [error] = [text for text in done.err.splitlines() if text.startswith("depthsched: ")]
    assert words in error
    turns = done.json()["turns"]
    assert [turn["question"] for turn in turns] == ["One?", "Two?"]
    assert turns[1]["schedule"] == "constant:depth=5"
    assert turns[1]["held_tokens"] > 0, "the conversation lost its cache"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--schedule", "nosuch"], "unknown schedule"),
        (["--renew", "word"], "renew='word' must be a number of steps"),
        (["--verify-below", 0.2, "--skipped-kv", "omit"], "which skipped_kv='omit' excludes"),
        (["--temperature", -1], "--temperature -1.0 must be in"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_loaded(chat: Chat, args: list[object], words: str) -> None:
    done = chat("One?\n", *args, model="/nowhere")
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_model_without_a_template(chat: Chat, folder: Path, tmp_path: Path) -> None:
    model, tokenizer = ds.load_model(str(folder), dtype="float32")
    model.save_pretrained(tmp_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    done = chat("One?\n", model=tmp_path)
    assert done.code == 2
    assert "no chat template" in done.err
    assert "depthsched generate" in done.err


class _Press:
    """A streamer that presses Ctrl-C with the tokens of these places."""

    def __init__(self, *places: int) -> None:
        self.places, self.seen = places, 0

    def put(self, value: torch.Tensor) -> None:
        self.seen += 1
        for _ in range(self.places.count(self.seen)):
            signal.raise_signal(signal.SIGINT)

    def end(self) -> None:
        pass


def test_ctrl_c_stops_an_answer_and_not_the_chat(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    before, made = signal.getsignal(signal.SIGINT), []
    whole = chat("One?\nTwo?\n", "--schedule", "full")

    def streamer(tokenizer: Any) -> _Press:
        made.append(_Press(*([4] if not made else [3, 3] if len(made) == 1 else [])))
        return made[-1]

    monkeypatch.setattr(chat_module, "_streamer", streamer)
    done = chat("One?\nOnce more?\nTwo?\n", "--schedule", "full")
    assert done.code == 0
    first, last = [line for line in done.out.splitlines() if line.startswith("[full]")]
    assert "; 3 tokens, " in first  # the prompt is what a streamer gets first
    assert "stopped; the question is taken back" in done.err
    assert "; 12 tokens, " in last
    assert len(whole.out.splitlines()) > len(done.out.splitlines())
    assert signal.getsignal(signal.SIGINT) is before


def test_typing(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["One?", KeyboardInterrupt(), "Two?", EOFError()])

    def answer(prompt: str) -> str:
        now = next(typed)
        if isinstance(now, BaseException):
            raise now
        return now

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", answer)
    done = cli("chat", "--model", folder, "--max-new-tokens", 4)
    assert done.code == 0
    assert done.out.count("[d3]") == 2
    assert "/quit or Ctrl-D leaves" in done.err


def test_smollm2(chat: Chat) -> None:
    lines = "What is the capital of France?\nAnd of Italy?\n"
    done = chat(lines, "--schedule", "constant:depth=26", "--verify-below", 0.3, "--json", model="smollm2")
    first, second = done.json()["turns"]
    assert "Paris" in first["text"]
    assert second["held_tokens"] >= first["prompt_tokens"]


def test_a_failed_turn_leaves_the_conversation(smollm2: tuple[Any, Any], folder: Path) -> None:
    model, tokenizer = ds.load_model(str(folder), dtype="float32")
    talk, plan = Conversation(model, tokenizer, max_new_tokens=3), ds.plan("full", num_layers=8)
    talk.ask("One?", plan)
    before = [*talk.messages]
    with pytest.raises(ds.errors.PlanError):
        talk.ask("long " * 600, plan)
    assert talk.messages == before
    assert talk.ask("Two?", plan).held > 0
