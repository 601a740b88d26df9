"""``ds.generate``: run a plan with our own loop, and keep what happened."""

from __future__ import annotations

from typing import Any

from ..adapters import adapter_for
from ..drafts import read_drafts
from ..parallel.ranks import guarded, ranks_of
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..schedule import DepthSchedule
from .arguments import effective, max_tokens, refuse_in_generate, with_stop_strings
from .backends import make_backend
from .cache import RunCache, mend
from .eager import EagerBackend
from .inputs import check_lengths, read_inputs
from .loop import DecodeLoop
from .lossless import LosslessLoop, check_lossless, drafting_backend, drafting_of
from .native.kv import starts_of
from .policy import as_plan, begin_on_ranks, check_plan, writes_kv
from .ragged import refuse_ragged
from .renewal import renewal_of
from .renewing import cache_to_renew, renewing_backend
from .run import Run
from .signals import refuse_signals

LOOK_EVERY = 8
"""Steps between two looks for the end token on a GPU, which each wait for it."""

DEFAULT_TOKENS = 256


def generate(
    model: Any,
    inputs: Any,
    plan: DepthPlan | PlanSpec | DepthSchedule | str = "full",
    *,
    order: Any = None,
    profile: Any = None,
    max_new_tokens: int | None = None,
    backend: str = "auto",
    skipped_kv: str = "auto",
    force: bool = False,
    streamer: Any = None,
    drop_finished: bool = False,
    lossless: bool = False,
    draft_tokens: int | str = "auto",
    verify_below: float | None = None,
    renew: int | str | None = None,
    **generate_kwargs: Any,
) -> Run:
    """Generate with a plan.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        On any device, in any floating dtype, or a wrapper around one such as PEFT's; left as it was, also when the
        run fails.
    inputs : mapping or torch.Tensor
        What a tokenizer returns (``input_ids`` and ``attention_mask``), or ids ``[batch, tokens]`` alone.
        Pad on the left.
    plan : DepthPlan, PlanSpec, DepthSchedule or str
        A spec or schedule is resolved for this model with ``max_new_tokens`` as its horizon.
    order : str or LayerOrder, optional
        Order for a spec or schedule.
    profile : Profile, str or Path, optional
        Calibrated profile for a spec or schedule, as for :func:`depthsched.plan`.
    max_new_tokens : int, optional
        Left out, what a given ``generation_config`` says, else 256.
    backend : str
        ``eager``, ``compiled``, ``cuda-graph`` or ``auto``, which picks one by device and length. A model that
        the fast ones cannot run runs in eager; ``trace.reason`` says why a backend was used.
    skipped_kv : str
        What becomes of K and V of skipped layers: ``auto`` (``write`` when the plan is not nested, else ``omit``),
        ``write`` from the state that passes through, ``omit``, or ``recompute``: none are written, and a step that
        runs a layer with holes is a pass at full depth over all positions since the last such pass.
    force : bool
        Drive a model family that is unknown or refused.
    streamer : transformers streamer, optional
        Where it has a method ``follow``, that gets the run's :class:`~depthsched.runtime.trace.Trace` before the first
        step: the trace grows while the run goes on.
    drop_finished : bool
        Leave rows that have stopped out of the batch, where the backend can: eager, and compiled on a CPU. A cache
        of the caller's loses their rows, and the trace still has a (padding) token for them.
    lossless : bool
        The plan drafts tokens, and full depth checks several in one pass and keeps those that are right: what comes out
        is what full depth writes, the same tokens when greedy and the same distribution when sampling.
    draft_tokens : int or str
        With ``lossless``, when to stop drafting. A number: after as many tokens. ``auto``: as many as pay by what it
        measures in the run, at the depth of the plan or a deeper one of its order, and none where drafting does not
        pay. ``confidence`` or ``confidence:0.6``: at the first token that the draft gives less than a threshold, which
        adapts as in Draft & Verify (arXiv 2309.08168). ``del``: like ``auto``, by acceptance and layers alone, without
        a clock (arXiv 2504.05598). At most 16 tokens.
    verify_below : float, optional
        A token is unsure where its margin (its probability minus the next one's, before any sampling setting) is below
        this. It is checked before it is kept: its step runs again at full depth, with ``recompute``. In a batch the
        least sure row decides for all.
    renew : int or str, optional
        A pass at full depth at least once in so many steps, or, with ``"sentence"`` and ``tokenizer``, at the end of
        each sentence, with ``recompute``.
    **generate_kwargs
        What ``model.generate`` takes for greedy decoding or sampling: logits processors, stopping criteria,
        ``stop_strings`` with ``tokenizer`` (which a schedule that asks for ``token_class`` needs too, and a run
        that shows its text in a notebook),
        ``generation_config``, ``output_scores`` and ``output_logits`` (in ``Run.scores`` and ``Run.logits``), ...
        An argument that would not be followed is refused by name;
        :mod:`depthsched.runtime.arguments` lists them all.

    Raises
    ------
    ModelError, PlanError, ProfileError, SettingsError, ScheduleError, AttachError, CacheError
    """
    adapter = adapter_for(model, force=force)
    model = adapter.model  # the inner one of a wrapper
    refuse_in_generate(model, generate_kwargs)
    drafts = read_drafts(lossless, draft_tokens, skipped_kv, drop_finished)
    tokenizer = generate_kwargs.get("tokenizer")
    renewal = renewal_of(skipped_kv, verify_below, renew, tokenizer, lossless=lossless)
    ids, mask = read_inputs(adapter, inputs)
    rows = len(ids) * (effective("num_return_sequences", model, generate_kwargs) or 1)
    if drafts:
        check_lossless(model, generate_kwargs, rows=rows)
    prompt = ids.shape[1]
    new = max_tokens(generate_kwargs, max_new_tokens, prompt, DEFAULT_TOKENS)
    plan = as_plan(plan, order, profile, adapter.num_layers, new)
    check_plan(plan, adapter)
    refuse_signals(plan, tokenizer=tokenizer, checks=renewal is not None or lossless, lossless=lossless)
    plan = plan.with_deeper() if drafts and drafts.chooses_depth else plan
    write, own_cache = writes_kv(plan, skipped_kv) and not lossless, _brings_cache(model, generate_kwargs)
    check_lengths(adapter, prompt, new)
    mend(given := generate_kwargs.get("past_key_values"), ids, mask)
    if isinstance(given, RunCache):
        generate_kwargs["past_key_values"] = given.fresh(rows // len(ids))
    if renewal is not None:
        generate_kwargs["past_key_values"] = cache_to_renew(model, generate_kwargs)
    ranks = ranks_of(model)
    begin_on_ranks(ranks, plan, {**generate_kwargs, "max_new_tokens": new, "backend": backend, "write": write}, ids)
    chosen, reason = make_backend(
        backend,
        adapter,
        plan,
        write_kv=write,
        batch=rows,
        max_tokens=prompt + new,
        own_cache=own_cache,
        holes=starts_of(mask) is None,
        several=bool(drafts),
    )
    if drafts:
        chosen, reason = drafting_backend(chosen, reason, backend, lambda: EagerBackend(adapter, plan))
        if chosen.name == "eager":
            refuse_ragged(adapter, prompt + new)
    elif renewal is not None:
        chosen, reason = renewing_backend(chosen, reason, backend, lambda: EagerBackend(adapter, plan))
    every = (
        plan.adaptive
        or renewal is not None
        or drop_finished
        or streamer is not None
        or own_cache
        or adapter.device.type == "cpu"
    )
    with guarded(ranks), chosen as engine:
        loop: DecodeLoop | LosslessLoop
        if drafts:
            loop = LosslessLoop(engine, plan, drafting_of(drafts, plan), streamer, reason, tokenizer)
        else:
            stride = 1 if every else LOOK_EVERY
            loop = DecodeLoop(engine, plan, streamer, reason, drop_finished, stride, renewal, tokenizer)
        if hasattr(streamer, "follow"):
            streamer.follow(loop.trace)
        # The bound method of the class: a wrapper on the instance would be another runtime's.
        sequences = type(model).generate(
            model,
            input_ids=ids,
            attention_mask=mask,
            custom_generate=loop,
            **{**with_stop_strings(model, generate_kwargs), "max_new_tokens": new},
        )
    return Run(
        tokens=sequences[:, prompt:].cpu(),
        sequences=sequences,
        trace=loop.trace,
        shape=adapter.shape(),
        prompt_tokens=prompt,
        prefill_seconds=loop.prefill_seconds,
        decode_seconds=loop.decode_seconds,
        wrote_kv=write,
        scores=loop.scores,
        logits=loop.logits,
        cache=loop.cache,
        tokenizer=tokenizer,
    )


def _brings_cache(model: Any, given: dict[str, Any]) -> bool:
    """Whether the caller chose the cache; one marked ``scratch`` is only a prompt computed before."""
    cache = given.get("past_key_values")
    chosen = effective("cache_implementation", model, given)
    return chosen is not None or not (cache is None or getattr(cache, "scratch", False))
