"""What a run of ``ds.generate`` produced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..cost import Cost, ModelShape
from ..display.views import run_html
from ..plans import DepthPlan
from .cache import RunCache
from .rounds import lossless_cost, report_lines, summary
from .trace import Trace, renewal_line, renewed_in


@dataclass(frozen=True)
class Run:
    """What a run produced.

    Attributes
    ----------
    tokens : torch.Tensor
        Generated tokens without the prompt, ``[batch, steps]``, int64, on the CPU.
    sequences : torch.Tensor
        Prompt and generated tokens, ``[batch, prompt + steps]``, on the model's device.
    trace : Trace
    shape : ModelShape
    prompt_tokens : int
        Length of the (padded) prompt.
    prefill_seconds, decode_seconds : float
        Wall clock, the device synchronised at both ends.
    wrote_kv : bool
        Whether skipped layers wrote K and V.
    cache : RunCache or None
        K and V of the positions that full depth computed, for ``past_key_values`` of the next turn:
        ``generate(model, {"input_ids": whole text, ...}, plan, past_key_values=run.cache)``. It lies where the run
        left it for as long as this object lives. None where a run keeps none: the backends of a GPU, rows that were
        dropped, lossless runs, and layers with a sliding window.
    scores, logits : tuple of torch.Tensor or None
        With ``output_scores`` and ``output_logits``: of each step ``[batch, vocabulary]`` float32, after and before
        the logits processors.
    tokenizer : transformers tokenizer or None
        The one that ``generate`` was given, for the text of a run that shows itself in a notebook.
    """

    tokens: torch.Tensor
    sequences: torch.Tensor
    trace: Trace
    shape: ModelShape
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    wrote_kv: bool = False
    scores: tuple[torch.Tensor, ...] | None = None
    logits: tuple[torch.Tensor, ...] | None = None
    cache: RunCache | None = field(default=None, repr=False, compare=False)
    tokenizer: Any = field(default=None, repr=False, compare=False)

    @property
    def plan(self) -> DepthPlan:
        """The plan that ran."""
        return self.trace.plan

    @property
    def layer_speedup(self) -> float:
        """Layers at full depth over layers run, decode steps only."""
        return self.shape.num_layers / self.trace.mean_depth

    @property
    def cost(self) -> Cost:
        """Bytes that every decode step moved, and would have moved at full depth."""
        return self.cost_of(len(self.tokens))

    def cost_of(self, batch: int) -> Cost:
        """The same for so many rows in place of those that ran."""
        depths = self.trace.decode_depths
        if self.trace.rounds is not None:
            return lossless_cost(self.plan, self.shape, self.trace.rounds, self.prompt_tokens, batch)
        steps = self.trace.steps[1:]
        return self.plan.cost(
            self.shape, depths, self.prompt_tokens, batch=batch, writes=self.wrote_kv,
            renewed=[s.renewed for s in steps], tried=[s.tried for s in steps],
        )  # fmt: skip

    @property
    def ranks(self) -> dict[str, float]:
        """Of a model that ranks share, what they exchanged in the decode steps; empty in one process.

        ``size``, how many they are; ``all_reduces``, sums over them; ``bytes_sent`` by each rank, in the model's
        dtype (compiled code on a CPU sums in float32); ``bytes_moved``, these and what it read and wrote in its own
        memory.
        """
        exchange = self.shape.exchange
        if exchange is None:
            return {}
        params, passes = self.plan.bridge_params, self.trace.passes(len(self.tokens))
        sent = sum(self.shape.sent(depth, params(depth)) * positions for depth, positions in passes)
        reduces = round(sum(exchange.all_reduces(depth, params(depth)) for depth, _ in passes))
        return {"size": exchange.ranks, "all_reduces": reduces, "bytes_sent": sent, "bytes_moved": self.cost.total}

    @property
    def bytes_speedup(self) -> float:
        """Bytes moved at full depth over bytes moved, decode steps only."""
        return self.cost.ratio

    @property
    def tokens_per_second(self) -> float:
        """Decoded tokens of all rows per second of decoding; the prefill and its token are not counted."""
        steps = len(self.trace.decode_depths)
        return steps * len(self.tokens) / self.decode_seconds if steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """The numbers of the run. ``tokens`` is a list of ids for one row, a list of lists for a batch."""
        rows = self.tokens.tolist()
        return {
            "tokens": rows[0] if len(rows) == 1 else rows,
            "depths": self.trace.depths,
            "num_tokens": self.tokens.shape[1],
            "prompt_tokens": self.prompt_tokens,
            "mean_depth": self.trace.mean_depth,
            "num_layers": self.shape.num_layers,
            "layer_speedup": self.layer_speedup,
            "bytes_speedup": self.bytes_speedup,
            "tokens_per_second": self.tokens_per_second,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.decode_seconds,
            "backend": self.trace.backend,
            "backend_reason": self.trace.reason,
            "compile_seconds": self.trace.compile_seconds,
            "schedule": self.plan.schedule,
            "order": self.plan.order,
            "profile": self.plan.profile.place if self.plan.profile else None,
            "profile_revision": (self.plan.profile.revision or None) if self.plan.profile else None,
            "notes": list(self.plan.notes),
            **({"ranks": self.ranks} if self.ranks else {}),
            **({"renewal": renewed_in(self.trace)} if self.trace.renewal is not None else {}),
            **(
                {"lossless": summary(self.trace.rounds, self.trace.draft_tokens, self.trace.decisions)}
                if self.trace.rounds is not None
                else {}
            ),
        }

    def report(self) -> str:
        """The run in four lines of text, and what a lossless one drafted or a renewing one computed again."""
        lines = (
            f"{self.plan.schedule} @ {self.plan.order}{_profiled(self.plan)}, backend {self.trace.backend}"
            f"{f' ({why})' if (why := self.trace.fallback) else ''}\n"
            f"{self.tokens.shape[1]} tokens, mean depth {self.trace.mean_depth:.1f} of {self.shape.num_layers}\n"
            f"{self.layer_speedup:.2f}x fewer layers, {self.bytes_speedup:.2f}x fewer bytes\n"
            f"prefill {self.prefill_seconds:.2f} s, decode {self.decode_seconds:.2f} s, "
            f"{self.tokens_per_second:.1f} tokens/s"
        )
        renewed = [renewal_line(renewed_in(self.trace))] if self.trace.renewal is not None else []
        return "\n".join([lines, *renewed, *self.drafting])

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def drafting(self) -> list[str]:
        """What a lossless run drafted and what came of it, in lines of text; none of any other run."""
        if self.trace.rounds is None:
            return []
        return report_lines(self.trace.rounds, self.trace.decisions)


def _profiled(plan: DepthPlan) -> str:
    """The profile of a plan and, where it has one, its plug-in or commit."""
    if plan.profile is None:
        return ""
    revision = plan.profile.revision
    return f", profile {plan.profile.place}" + (f" ({revision})" if revision not in plan.profile.place else "")
