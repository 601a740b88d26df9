"""What the runtime needs of a model family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..cost import ModelShape
from ..errors import ModelError

if TYPE_CHECKING:  # `depthsched list` names the adapters without the seconds that torch takes to import
    import torch
    from torch import nn


class Adapter:
    """How to find, skip and repair the layers of one model family. Knows no schedule.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model of one of :attr:`families`.

    Attributes
    ----------
    name : str, class attribute
    families : mapping of str to str, class attribute
        ``config.model_type`` -> what is special about it.
    """

    name: ClassVar[str] = ""
    families: ClassVar[Mapping[str, str]] = {}

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.decoder: nn.Module = model.get_decoder()

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, bottom first."""
        layers: Any = getattr(self.decoder, "layers", None)
        if not hasattr(layers, "_modules") or len(layers._modules) == 0:
            raise ModelError(f"{type(self.model).__name__} has no decoder layers to skip; use a causal language model")
        found: nn.ModuleList = layers
        return found

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last layer and the LM head.

        Raises
        ------
        ModelError
            The decoder's is not called ``norm``, and the adapter of its family does not say which one it is.
        """
        found: nn.Module | None = getattr(self.decoder, "norm", None)
        if found is None:
            raise ModelError(
                f"{type(self.decoder).__name__} has no module 'norm' after its layers; "
                f"{type(self).__name__}.final_norm must return the one that stands there"
            )
        return found

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model, L."""
        return len(self.layers)

    @property
    def length_layers(self) -> frozenset[int]:
        """Layers whose cache length transformers reads for masks and positions: the first of each attention type.

        When one of them is skipped its K and V are written, so that the length stays right.
        """
        types = getattr(self.config, "layer_types", None) or ["full_attention"] * self.num_layers
        return frozenset({0} | {types.index(kind) for kind in set(types)})

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of hidden states and of K and V: that of the first weight that is not stored in less."""
        import torch

        wide = (p.dtype for p in self.model.parameters() if p.is_floating_point() and p.element_size() > 1)
        return next(wide, torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Where hidden states are; for offloaded weights where accelerate runs them.

        Raises
        ------
        ModelError
            The model is on the meta device, with nothing that would load its weights.
        """
        import torch

        embedding = self.model.get_input_embeddings()
        for module in embedding.modules():
            hook = getattr(module, "_hf_hook", None)
            for one in getattr(hook, "hooks", [hook]):
                if getattr(one, "execution_device", None) is not None:
                    return torch.device(one.execution_device)
        found: torch.device = [*embedding.parameters(), *embedding.buffers()][0].device
        if found.type == "meta":
            raise ModelError(
                f"{type(self.model).__name__} is on the meta device and has no weights to run; "
                "load them with from_pretrained, or offload them with accelerate"
            )
        return found

    def shape(self) -> ModelShape:
        """Sizes that decide what a decode step costs."""
        raise ModelError(f"adapter {self.name!r} does not define shape(self)")

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of final states (after the last norm), ``[..., hidden]`` to ``[..., vocabulary]``."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        config: Any = self.config
        if getattr(config, "logits_scaling", None) is not None:  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None) is not None:  # Cohere
            logits = logits * config.logit_scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3
        return logits if cap is None else (logits / cap).tanh() * cap

    def write_kv(self, layer: nn.Module, hidden: torch.Tensor, cache: Any, position_embeddings: Any) -> None:
        """Write K and V of a skipped layer from the state that passes through it.

        Parameters
        ----------
        layer : nn.Module
            The layer that is skipped.
        hidden : torch.Tensor
            State passing through, ``[batch, tokens, hidden]``.
        cache : transformers.Cache
        position_embeddings : tuple of torch.Tensor
            ``(cos, sin)`` as the layer itself would get them.
        """
        raise ModelError(f"adapter {self.name!r} cannot write K and V of skipped layers; use a nested plan")
