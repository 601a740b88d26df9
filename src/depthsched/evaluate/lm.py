"""The model class for lm-eval: its own Hugging Face class, with generation in our runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from ..adapters import adapter_for
from ..errors import PlanError
from ..models import load_model
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..runtime.backends import maker
from ..runtime.generate import generate
from ..runtime.renewal import SENTENCE, renewal_of
from ..runtime.run import Run
from ..schedule import AdaptiveSchedule
from .prefixes import WORTH_SHARING, PromptStore, common_length
from .records import RowRecord, row_records
from .shared import shared_prefix
from .stops import RowStops

NO_LIKELIHOOD = (
    "a log-likelihood task is scored by one full forward over a given text, where a decode schedule never acts: "
    "every plan would look lossless; choose a task that generates, such as gsm8k_cot or bbh_cot_fewshot_navigate"
)


class DepthLM(HFLM):  # type: ignore[misc]
    """lm-eval model ``depthsched``: a plan for the decode steps of any task that generates.

    Tokens, chat template, stop texts and what becomes of the output are those of lm-eval's ``hf`` model, whose
    subclass this is; only the generation itself is ours.

    Parameters
    ----------
    pretrained : str or transformers.PreTrainedModel
        As for :func:`depthsched.load_model`, or a model at hand, with ``tokenizer``.
    plan : str or PlanSpec
        Resolved with each task's own maximum of tokens as its horizon.
    profile, order : str, optional
        Defaults for a plan that names none.
    backend : str
        ``eager``, ``compiled``, ``cuda-graph`` or ``auto``.
    batch_size : int
        Rows decoded together. An adaptive plan decides for each row alone, so it runs one at a time.
    store : PromptStore, optional
        Prompts computed for another plan on the same model.
    progress : callable, optional
        Called with the number of requests finished.
    dtype, device, weights : str
        As for :func:`depthsched.load_model`.
    skipped_kv, verify_below, renew
        As for :func:`depthsched.generate`. Where tokens decide when the cache is renewed, rows run one at a time too.
    """

    def __init__(
        self,
        pretrained: Any = "smollm2",
        plan: str | PlanSpec = "full",
        profile: str | None = None,
        order: str | None = None,
        dtype: Any = "auto",
        device: str | None = None,
        backend: str = "auto",
        batch_size: int | str | None = 1,
        tokenizer: Any = None,
        store: PromptStore | None = None,
        progress: Callable[[int], None] | None = None,
        weights: str = "auto",
        skipped_kv: str = "auto",
        verify_below: float | None = None,
        renew: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        self.spec = PlanSpec.parse(plan, order, profile)  # before the model, so that a typo costs no loading
        if isinstance(pretrained, str):
            pretrained, tokenizer = load_model(pretrained, dtype=dtype, device=_device(device), weights=weights)
        self.renewal = renewal_of(skipped_kv, verify_below, renew, tokenizer)
        self.rules = {"skipped_kv": skipped_kv, "verify_below": verify_below, "renew": renew, "tokenizer": tokenizer}
        alone = isinstance(self.spec.schedule, AdaptiveSchedule) or verify_below is not None or renew == SENTENCE
        rows = 1 if alone else _batch_size(batch_size)
        super().__init__(pretrained=pretrained, tokenizer=tokenizer, backend="causal", batch_size=rows, **kwargs)
        self.runtime = backend
        self.adapter = adapter_for(self.model)
        self.store = store or PromptStore(self.adapter)
        self.progress = progress or (lambda done: None)
        self.records: dict[str, RowRecord] = {}
        self._prefix: tuple[int, ...] = ()
        self._contexts: Sequence[str] = ()
        self.notes: dict[str, None] = {}
        self._resolved = functools.cache(self._resolve)

    def _resolve(self, horizon: int) -> DepthPlan:
        plan = self.spec.resolve(self.adapter.num_layers, horizon)
        self.notes |= dict.fromkeys(plan.notes)
        return plan

    def loglikelihood(self, *args: Any, **kwargs: Any) -> Any:
        """Refused; so are the two below.

        Raises
        ------
        PlanError
        """
        raise PlanError(NO_LIKELIHOOD)

    loglikelihood_rolling = _loglikelihood_tokens = loglikelihood

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Generate for lm-eval's requests, task by task: the items of a task share their few-shot prefix."""
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(request.task_name or "", []).append(i)
        outputs = [""] * len(requests)
        for members in groups.values():
            some = [requests[i] for i in members]
            rows = [tuple(self.tok_encode(request.args[0])) for request in some]
            shared = common_length(rows)
            prefix = self.store.known(rows, shared) or rows[0][:shared]
            self._prefix = prefix if self.store.shares and len(prefix) >= WORTH_SHARING else ()
            for i, text in zip(members, super().generate_until(some, disable_tqdm=True), strict=True):
                outputs[i] = text
        return outputs

    def tok_batch_encode(self, strings: Any, *args: Any, **kwargs: Any) -> Any:
        """As in the base class; keeps the texts, so that what is generated for a batch is recorded under them."""
        self._contexts = list(strings)
        return super().tok_batch_encode(strings, *args, **kwargs)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        mask = torch.ones_like(context) if attention_mask is None else attention_mask
        room = max_length - context.shape[1]
        stops = RowStops(self.tokenizer, stop, self._eos(), context.shape[1])
        options = {
            "max_new_tokens": room,
            "stopping_criteria": [stops],
            "pad_token_id": self.tokenizer.pad_token_id,
            "do_sample": bool(kwargs.get("do_sample")),
            "drop_finished": True,
            **self.rules,
            **{
                k: v for k, v in kwargs.items() if k not in ("do_sample", "max_length") and (k, v) != ("temperature", 0)
            },
        }
        run = self._run(context, mask, self._resolved(room), options)
        for text, record in zip(self._contexts, row_records(run, stops.lengths), strict=True):
            self.records[text] = record
        self.progress(len(context))
        return torch.cat([context, run.tokens.to(context.device)], dim=-1)

    def _run(self, context: Tensor, mask: Tensor, plan: DepthPlan, options: dict[str, Any]) -> Run:
        if not self._prefix or not self._starts_with_prefix(context, mask):
            inputs = {"input_ids": context, "attention_mask": mask}
            return generate(self.model, inputs, plan, backend=self.runtime, **options)
        cut, batch = len(self._prefix), len(context)
        rest = context.shape[1] - cut
        # In front of the prefix a row has as much padding as it is shorter than the longest: behind it, its own part.
        own_mask = mask[:, :rest]
        own = context[:, -rest:] * own_mask
        # A cache over a shared prefix cannot be cut where a pass begins.
        dense = self.renewal is not None or self._dense(plan, context.shape[1] + options["max_new_tokens"])
        cache = self.store.cache(self._prefix, own, own_mask, options["max_new_tokens"] + 1, dense=dense)
        options = {**options, "past_key_values": cache}
        if dense:
            inputs = {"input_ids": context, "attention_mask": mask}
            return generate(self.model, inputs, plan, backend=self.runtime, **options)
        prefix = torch.tensor([self._prefix], device=context.device).expand(batch, -1)
        inputs = {
            "input_ids": torch.cat([prefix, own + context[:, :rest] * (1 - own_mask)], dim=-1),
            "attention_mask": torch.cat([mask.new_ones(batch, cut), own_mask], dim=-1),
        }
        with shared_prefix(self.model):
            return generate(self.model, inputs, plan, backend="eager", **options)

    def _dense(self, plan: DepthPlan, max_tokens: int) -> bool:
        """Whether a fast backend will run: its rows each need a copy of the prefix, and it outruns sharing."""
        make, _ = maker(self.runtime, adapter_for(self.model), plan, write_kv=False, batch=1, max_tokens=max_tokens)
        return make is not None

    def _starts_with_prefix(self, context: Tensor, mask: Tensor) -> bool:
        """False where lm-eval cut a prompt on the left because it was too long."""
        prefix = torch.tensor(self._prefix, device=context.device)
        return all(
            len(row) > len(prefix) and bool((row[: len(prefix)] == prefix).all())
            for row in (ids[keep.bool()] for ids, keep in zip(context, mask, strict=True))
        )

    def _eos(self) -> list[int]:
        found = self.model.generation_config.eos_token_id
        return found if isinstance(found, list) else [] if found is None else [int(found)]


def _device(asked: str | None) -> str:
    """lm-eval asks for ``cuda:0`` where nobody said anything, and its own model takes what there is."""
    return "auto" if asked is None or (asked.startswith("cuda") and not torch.cuda.is_available()) else asked


def _batch_size(value: int | str | None) -> int:
    try:
        size = int(value or 1)
    except ValueError:
        size = 0
    if size < 1:
        raise PlanError(f"batch_size={value!r} must be a whole number from 1")
    return size
