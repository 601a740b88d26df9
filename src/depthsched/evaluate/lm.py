"""The model class for lm-eval: its own Hugging Face class, with generation in our runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from ..adapters import adapter_for
from ..errors import PlanError
from ..models import load_model
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..runtime.renewal import SENTENCE, renewal_of
from ..schedule import AdaptiveSchedule
from ..work.cluster import Cluster, working
from .batches import Answering, Answers, Batch, answer_batch
from .prefixes import PromptStore
from .records import RowRecord

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
    cluster : Cluster, optional
        Spread the batches over its workers, which load model and tokenizer by the model's name.
    """

    cache_hook: Any  # lm-eval's: where it keeps finished answers, if it does

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
        cluster: Cluster | None = None,
        **kwargs: Any,
    ) -> None:
        self.spec = PlanSpec.parse(plan, order, profile)  # before the model, so that a typo costs no loading
        if isinstance(pretrained, str):
            pretrained, tokenizer = load_model(pretrained, dtype=dtype, device=_device(device), weights=weights)
        renewal_of(skipped_kv, verify_below, renew, tokenizer)  # refuses what means nothing
        self.rules = {"skipped_kv": skipped_kv, "verify_below": verify_below, "renew": renew}
        alone = isinstance(self.spec.schedule, AdaptiveSchedule) or verify_below is not None or renew == SENTENCE
        rows = 1 if alone else _batch_size(batch_size)
        super().__init__(pretrained=pretrained, tokenizer=tokenizer, backend="causal", batch_size=rows, **kwargs)
        self.runtime = backend
        self.adapter = adapter_for(self.model)
        self.store = store or PromptStore(self.adapter)
        self.progress = progress or (lambda done: None)
        self.records: dict[str, RowRecord] = {}
        self.cluster = cluster
        self._batches: list[Batch] = []
        self._answers: Iterator[tuple[Batch, Any]] | None = None
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
            for i, text in zip(members, self._answered([requests[i] for i in members]), strict=True):
                outputs[i] = text
        return outputs

    def _answered(self, requests: Sequence[Any]) -> list[str]:
        """The texts for requests of one task.

        lm-eval forms batches and reads their answers in one loop, which is walked twice: once for the batches, each a
        piece of work, and once for what became of them.
        """
        prefix = self.store.choose([tuple(self.tok_encode(request.args[0])) for request in requests])
        batches = self._formed(requests)
        answering = Answering(
            plans={batch.max_new_tokens: self._resolved(batch.max_new_tokens) for batch in batches},
            backend=self.runtime,
            rules=self.rules,
            prefix=prefix,
            eos=tuple(self._eos()),
            tokenizer=self.tokenizer,
            store=self.store,
        )
        with working(self.model, self.tokenizer, self.cluster) as work:
            shared = answering if self.cluster is None else answering.to_json(batches[0].context[0].tolist())
            self._answers = zip(batches, work.map(answer_batch, shared, batches), strict=True)
            try:
                return list(super().generate_until(requests, disable_tqdm=True))
            finally:
                self._answers = None

    def _formed(self, requests: Sequence[Any]) -> list[Batch]:
        """The batches of some requests, encoded and padded.

        Raises
        ------
        PlanError
            Answers are drawn at random, and workers would draw others.
        """
        self._batches = []
        hook, self.cache_hook = self.cache_hook, CacheHook(None)  # there are no answers to keep yet
        try:
            super().generate_until(requests, disable_tqdm=True)
        finally:
            self.cache_hook = hook
        if self.cluster is not None and any(batch.options["do_sample"] for batch in self._batches):
            name = requests[0].task_name
            raise PlanError(
                f"task {name!r} draws its answers at random, and workers draw others; leave the cluster out"
            )
        return self._batches

    def tok_batch_encode(self, strings: Any, *args: Any, **kwargs: Any) -> Any:
        """As in the base class; on the second walk the batch that was formed on the first."""
        if self._answers is None:
            return super().tok_batch_encode(strings, *args, **kwargs)
        batch, piece = next(self._answers)
        self._found = Answers.of(piece)
        self.records |= zip(strings, self._found.records, strict=True)
        self.progress(len(strings))
        return batch.context, batch.mask

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if self._answers is not None:
            return torch.cat([context, self._found.tokens.to(context.device)], dim=-1)
        mask = torch.ones_like(context) if attention_mask is None else attention_mask
        ours = {"pad_token_id": self.tokenizer.pad_token_id, "do_sample": bool(kwargs.get("do_sample"))}
        theirs = {
            k: v for k, v in kwargs.items() if k not in ("do_sample", "max_length") and (k, v) != ("temperature", 0)
        }
        self._batches.append(Batch(context, mask, max_length - context.shape[1], stop, {**ours, **theirs}))
        return context

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
