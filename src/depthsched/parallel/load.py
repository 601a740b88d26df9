"""Load a model so that every rank has its shard of it."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from . import launch


def ranks_for(device: Any, weights: str) -> tuple[Any, str]:
    """The ranks to split a model over, None where only one process was started, and the form of its weights.

    Raises
    ------
    ModelError
        Native weights were asked for, another device than the one that transformers takes for each rank, or no launcher
        started this process.
    RankError
    """
    from .ranks import join

    if weights == "native":
        raise ModelError("native weights lie in blocks that ranks cannot share; use weights='dense'")
    import torch

    taken = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    if launch.world() > 1 and (taken is None or device.type != taken.type or device.index is not None):
        raise ModelError(f"every rank runs on a {taken} of its own, so that device {str(device)!r} cannot be chosen")
    return (None, weights) if launch.launched() and launch.world() == 1 else (join(device), "dense")


def load_shards(source: str, dtype: Any, ranks: Any) -> Any:
    """This rank's shard of a causal language model, by transformers' own tensor parallelism.

    Parameters
    ----------
    source : str
        What transformers loads.
    dtype : torch.dtype
    ranks : Ranks

    Raises
    ------
    ModelError
        The number of ranks does not divide its heads.
    RankError
        The ranks load different models.
    OSError, ValueError, RuntimeError
        As from transformers.
    """
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    _check_counts(source, ranks.size)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, distributed_config=DistributedConfig(tp_plan="auto")
    )
    ranks.same("model", [(name, tuple(p.shape), str(p.dtype)) for name, p in model.named_parameters()])
    return model


def _check_counts(source: str, size: int) -> None:
    """Refuse a number of ranks that does not divide the heads of a model, before any weight is read.

    Raises
    ------
    ModelError
        With the numbers that work.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source).get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    works = launch.counts([heads, kv_heads])
    if size not in works:
        numbers = ", ".join(map(str, works))
        raise ModelError(
            f"{size} ranks cannot share {heads} heads and {kv_heads} KV heads evenly; "
            + (f"numbers of ranks that work: {numbers}" if len(works) > 1 else "this model runs in one process only")
        )
