"""Rules for a ranker, checked on a tiny model. Torch is imported inside functions: the kit needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..ranker import LayerRanker, wrong_ranking
from ..text import one_line
from .report import Finding
from .settings_checks import check_frozen, check_same, say

if TYPE_CHECKING:
    from ..calibrate.study import Study

LAYERS, VOCABULARY = 6, 64


@contextmanager
def tiny_study(drops: int = 3, seed: int = 0, num_layers: int = LAYERS, model: Any = None) -> Iterator[Study]:
    """What a calibration would give a ranker, of a tiny Llama with random weights and six samples of random tokens.

    Parameters
    ----------
    drops : int
        Layers to rank.
    seed : int
        ``study.seed``.
    num_layers : int
        Layers of the model. The same weights and samples every time.
    model : transformers.PreTrainedModel, optional
        Another model, whose vocabulary has at least 64 tokens.
    """
    from ..adapters import adapter_for
    from ..calibrate.study import Study
    from ..calibrate.units import Units

    with TemporaryDirectory() as folder:
        adapter = adapter_for(_model(num_layers) if model is None else model)
        samples = _samples()
        yield Study.of(adapter, samples[2:], samples[:2], Units(Path(folder) / "work", {}), drops, seed)


def _model(num_layers: int = LAYERS) -> Any:
    """A new one each time: what a ranker leaves on it is gone with it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama",
        num_hidden_layers=num_layers,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
        initializer_range=0.2,  # ten times the usual, so that every layer changes the logits
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


def _samples() -> list[Any]:
    from random import Random

    from ..score.answers import Sample

    draw = Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))

    return [Sample(tokens(4 + i % 3), tokens(8 + i)) for i in range(6)]


def _rank(ranker: LayerRanker, drops: int, seed: int = 0, model: Any = None) -> list[int]:
    """The ranking, checked."""
    where = f"{say(ranker)} on {LAYERS} layers, study.drops {drops}"
    with tiny_study(drops, seed, model=model) as study:
        try:
            ranked = list(ranker.rank(study))
        except Exception as error:
            said = f"rank() fails with {type(error).__name__}: {one_line(error, 160)}"
            raise Finding("valid_layers", f"{where}: {said}") from error
    if problem := wrong_ranking(ranked, LAYERS, drops):
        raise Finding("valid_layers", f"{where}: {problem}")
    return ranked


def frozen(ranker: LayerRanker) -> None:
    """The class is a frozen dataclass."""
    check_frozen(ranker)


def valid_layers(ranker: LayerRanker) -> None:
    """Distinct layers between the first and the last, as many as asked for, for one layer and for all of them."""
    for drops in (1, LAYERS - 2):
        _rank(ranker, drops)


def deterministic(ranker: LayerRanker) -> None:
    """The same model, samples and seed have the same ranking; also with another state of the global generators."""
    import torch

    def rank(state: int) -> list[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            return _rank(ranker, LAYERS - 2, seed=7)

    advice = "draw from study.seed alone, and use no clock or counter"
    check_same("deterministic", f"{say(ranker)} on {LAYERS} layers", "rank()", rank(1), rank(2), advice)


def model_unchanged(ranker: LayerRanker) -> None:
    """Weights, layers and hooks of the model are those from before."""
    model = _model()
    before = _state(model)
    _rank(ranker, LAYERS - 2, model=model)
    for what, value in _state(model).items():
        if value != before[what]:
            raise Finding(
                "model_unchanged",
                f"{say(ranker)}: rank() changed the {what} of the model; take off what you attach in a finally",
            )


def _state(model: Any) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {
        "weights": {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()},
        "modules": {name: id(module) for name, module in modules.items()},
        "hooks": {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in modules.items()},
        "mode": model.training,
        "gradients": [parameter.grad is not None for parameter in model.parameters()],
    }


CHECKS: dict[str, Callable[[LayerRanker], None]] = {
    rule.__name__: rule for rule in (frozen, valid_layers, deterministic, model_unchanged)
}
