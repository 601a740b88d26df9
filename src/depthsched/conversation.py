"""Several turns with a model under plans: each computes what is new, on the cache of the turn before."""

from __future__ import annotations

from typing import Any, NamedTuple

from .encoding import model_inputs
from .errors import SettingsError
from .plans import DepthPlan
from .runtime.generate import generate
from .runtime.run import Run


class Turn(NamedTuple):
    """One question and its answer.

    Attributes
    ----------
    question, answer : str
    run : Run
    read, held : int
        Tokens of the conversation that this turn computed before its answer, and those that it took from the cache.
    """

    question: str
    answer: str
    run: Run
    read: int
    held: int


class Conversation:
    """A conversation through the chat template of a tokenizer.

    Parameters
    ----------
    model, tokenizer
        As from :func:`depthsched.load_model`.
    system : str, optional
        What the model is told first.
    **options
        For every turn, as :func:`depthsched.generate` takes them.

    Attributes
    ----------
    messages : list of dict
        ``role`` and ``content`` of each, as the template takes them.

    Raises
    ------
    SettingsError
        The tokenizer has no chat template.
    """

    def __init__(self, model: Any, tokenizer: Any, system: str | None = None, **options: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise SettingsError("the tokenizer has no chat template, so it knows no turns; use depthsched generate")
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self._cache: Any = None

    def ask(self, question: str, plan: DepthPlan, **options: Any) -> Turn:
        """The answer to a question. After an error or an interrupt the conversation is as before.

        Parameters
        ----------
        question : str
        plan : DepthPlan
            Of this answer; another one may follow.
        **options
            More of :func:`depthsched.generate`, such as a streamer.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        inputs = model_inputs([self.tokenizer(text, add_special_tokens=False)["input_ids"]], self.model.device)
        # The text of an answer may be other tokens than those that wrote it: the cache counts as far as they agree.
        cache = None if self._cache is None else self._cache.beginning(inputs["input_ids"])
        run = generate(
            self.model, inputs, plan, past_key_values=cache, **{**self.options, **options, "tokenizer": self.tokenizer}
        )
        answer = self.tokenizer.decode(run.tokens[0], skip_special_tokens=True)
        self.messages = [*asked, {"role": "assistant", "content": answer}]
        self._cache = run.cache
        held = 0 if cache is None else cache.get_seq_length()
        return Turn(question, answer, run, run.prompt_tokens - held, held)
