"""Every argument of transformers' ``generate`` and what becomes of it: nothing is taken and then ignored.

An argument may come as a keyword, inside the ``generation_config`` that is given, or inside the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import StoppingCriteriaList, StopStringCriteria

from ..errors import AttachError, DepthschedError, PlanError
from ..settings import suggest

_BEAMS = "it belongs to beam search; use ds.attach with model.generate"
_DRAFTS = "it drafts and verifies several tokens per step, where a plan has no meaning"
_DRAFTER = "it only acts in assisted decoding, which a plan cannot follow"
_TWICE = "it runs the model twice per token, and a plan has one depth for each"
_STATES = "skipped layers have no states, so its indices would name other layers; use a forward outside generate"

# Decoding modes that no plan can follow, in attach and in ds.generate.
MODES = {
    "assistant_model": _DRAFTS,
    "prompt_lookup_num_tokens": _DRAFTS,
    "assistant_early_exit": _DRAFTS,
    "use_mtp": _DRAFTS,
    "speculation_type": _DRAFTS,
    "penalty_alpha": "contrastive search looks at several continuations per step; sample or decode greedily",
    "dola_layers": "DoLa compares layers that a plan may skip; sample or decode greedily",
    "guidance_scale": _TWICE,
    "negative_prompt_ids": _TWICE,
    "negative_prompt_attention_mask": _TWICE,
    "constraints": "constrained beam search is no longer part of transformers",
    "force_words_ids": "constrained beam search is no longer part of transformers",
    "compile_config": "compiled code holds the layers of one depth; choose a backend of ds.generate instead",
    "continuous_batching_config": "continuous batching mixes rows at different steps; use a padded batch",
    "output_hidden_states": _STATES,
    "output_attentions": _STATES,
}

# Further ones that the loop of ds.generate does not have.
OWN_LOOP = {
    "num_beams": "ds.generate decodes greedily or samples; use ds.attach with model.generate for beam search",
    "num_beam_groups": _BEAMS,
    "diversity_penalty": _BEAMS,
    "early_stopping": _BEAMS,
    "length_penalty": _BEAMS,
    "low_memory": _BEAMS,
    "token_healing": "heal the prompt beforehand, with model.heal_tokens",
    "synced_gpus": "ds.generate stops when its own rows have stopped",
}

# The loop of a lossless attach has none of these either.
_ONE_PATH = "a lossless run follows one continuation of each row; leave lossless out"
IN_LOSSLESS_ATTACH = {
    **dict.fromkeys(
        ("num_beams", "num_beam_groups", "diversity_penalty", "early_stopping", "length_penalty", "low_memory"),
        _ONE_PATH,
    ),
    "token_healing": OWN_LOOP["token_healing"],
    "synced_gpus": "a lossless run stops when its own rows have stopped",
    "inputs_embeds": "a lossless run takes token ids; leave lossless out",
    "custom_generate": "the decode loop is ours; leave lossless out",
    "trust_remote_code": "no code of a hub runs here",
}

# Refused where the caller names them; in a model's own configuration they do nothing here, as in generate.
KNOBS = {
    "num_assistant_tokens": _DRAFTER,
    "num_assistant_tokens_schedule": _DRAFTER,
    "assistant_confidence_threshold": _DRAFTER,
    "assistant_lookbehind": _DRAFTER,
    "assistant_ensemble_weight": _DRAFTER,
    "target_lookbehind": _DRAFTER,
    "max_matching_ngram_size": _DRAFTER,
    "is_assistant": _DRAFTER,
    "assistant_tokenizer": _DRAFTER,
    "decoder_start_token_id": "it belongs to encoder-decoder models",
    "max_length": "give max_new_tokens",
    "inputs": "give the token ids as the second argument",
    "input_ids": "give the token ids as the second argument",
    "attention_mask": "give it with the token ids, as a tokenizer does: {'input_ids': ..., 'attention_mask': ...}",
    "inputs_embeds": "ds.generate takes token ids; use ds.attach with model.generate for inputs_embeds",
    "custom_generate": "the decode loop is ours; use ds.attach with model.generate",
    "trust_remote_code": "no code of a hub runs here",
}

# What the configuration that transformers prepares from them does in our loop as in its own.
TAKEN = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "disable_compile",
        "do_sample",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "eos_token_id",
        "epsilon_cutoff",
        "eta_cutoff",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "logits_processor",
        "max_cache_len",
        "max_new_tokens",
        "max_time",
        "min_length",
        "min_new_tokens",
        "min_p",
        "no_repeat_ngram_size",
        "num_return_sequences",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "past_key_values",
        "prefill_chunk_size",
        "prefix_allowed_tokens_fn",
        "remove_invalid_values",
        "renormalize_logits",
        "repetition_penalty",
        "return_dict_in_generate",
        "sequence_bias",
        "stop_strings",
        "stopping_criteria",
        "suppress_tokens",
        "temperature",
        "tokenizer",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
        "use_cache",
        "watermarking_config",
    }
)

# Bookkeeping of a configuration, no argument.
NOTES = frozenset({"_commit_hash", "_from_model_config", "transformers_version"})

# What a mode is at when it is off; None always is.
_OFF: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "length_penalty": 1.0,
    "guidance_scale": 1,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
}
_SWITCHES = {
    "is_assistant",
    "low_memory",
    "output_attentions",
    "output_hidden_states",
    "penalty_alpha",
    "synced_gpus",
    "token_healing",
    "trust_remote_code",
    "use_mtp",
}  # off where false or 0


def effective(name: str, model: Any, given: Mapping[str, Any]) -> Any:
    """The value of an argument that a run would have: the keyword's, the given configuration's, the model's."""
    if name in given:
        return given[name]
    for config in (given.get("generation_config"), model.generation_config):
        value = getattr(config, name, None)
        if value is not None:
            return value
    return None


def refuse_in_attach(model: Any, given: Mapping[str, Any]) -> None:
    """Raise on a decoding mode that a plan cannot follow.

    Raises
    ------
    AttachError
    """
    _refuse(MODES, model, given, AttachError, "inside attach, generate")


def refuse_in_lossless_attach(model: Any, given: Mapping[str, Any]) -> None:
    """Raise on what a lossless run inside transformers' ``generate`` cannot follow.

    Raises
    ------
    AttachError
    """
    who = "inside a lossless attach, generate"
    _refuse({**MODES, **IN_LOSSLESS_ATTACH}, model, given, AttachError, who)
    for name, value in given.items():
        if KNOBS.get(name) == _DRAFTER and not _off(name, value):
            raise AttachError(f"{who} does not take {name}; draft_tokens of ds.attach says when to stop drafting")


def refuse_in_generate(model: Any, given: Mapping[str, Any]) -> None:
    """Raise on every argument that ``ds.generate`` would not follow.

    Raises
    ------
    PlanError
    """
    _refuse({**MODES, **OWN_LOOP}, model, given, PlanError, "ds.generate")
    config = given.get("generation_config")
    named = {**(config.to_dict() if config is not None else {}), **given}
    if given.get("max_length") is None:
        named.pop("max_length", None)  # of a configuration: what max_new_tokens follows from
    for name, value in named.items():
        if name in KNOBS and not _off(name, value):
            raise PlanError(f"ds.generate does not take {name}: {KNOBS[name]}")
        if name not in known() and value is not None and name != "generation_config":
            raise PlanError(f"ds.generate does not take {name}; {suggest(name, TAKEN)}")


def known() -> frozenset[str]:
    """Every argument that has its place in one of the tables."""
    return TAKEN | NOTES | {*MODES, *OWN_LOOP, *KNOBS}


def _refuse(
    table: Mapping[str, str], model: Any, given: Mapping[str, Any], error: type[DepthschedError], who: str
) -> None:
    for name, reason in table.items():
        if not _off(name, effective(name, model, given)):
            raise error(f"{who} does not take {name}: {reason}")


def _off(name: str, value: Any) -> bool:
    return value is None or (name in _SWITCHES and not value) or (name in _OFF and bool(value == _OFF[name]))


def max_tokens(given: Mapping[str, Any], asked: int | None, prompt: int, default: int) -> int:
    """Most new tokens of a run: those asked for, else what the given configuration says, else the default.

    Raises
    ------
    PlanError
        There is room for none.
    """
    config = given.get("generation_config")
    most = asked if asked is not None else getattr(config, "max_new_tokens", None)
    if most is None:
        length = getattr(config, "max_length", None)
        most = default if length is None else length - prompt
    if most < 1:
        raise PlanError(f"there is room for {most} new tokens; max_new_tokens must be at least 1")
    return int(most)


def with_stop_strings(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with stop strings as a stopping criterion: a tokenizer does not reach a loop of one's own."""
    rest = {name: value for name, value in given.items() if name != "tokenizer"}
    texts, tokenizer = effective("stop_strings", model, given), given.get("tokenizer")
    if texts is None:
        return rest
    if tokenizer is None:
        raise PlanError("stop_strings needs the tokenizer: ds.generate(..., stop_strings=[...], tokenizer=tokenizer)")
    criteria = [*(given.get("stopping_criteria") or ()), StopStringCriteria(tokenizer, texts)]
    return {**rest, "stop_strings": None, "stopping_criteria": StoppingCriteriaList(criteria)}
