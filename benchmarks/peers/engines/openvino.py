"""OpenVINO GenAI, which reads the GGUF file itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino_genai


class Engine:
    """Its defaults but for the threads and for prefixes that it keeps: every round would find its own prompt there."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        self.pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads, scheduler_config=scheduler)

    def encode(self, text: str) -> list[int]:
        found = self.pipe.get_tokenizer().encode(text, add_special_tokens=False)
        return [int(token) for token in found.input_ids.data[0]]

    def generate(self, prompt: list[int], tokens: int, seen: Callable[[], None]) -> list[int]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return [int(token) for token in self.pipe.generate(ids, config, _Streamer(seen)).tokens[0]]

    def versions(self) -> dict[str, str]:
        return {"openvino": openvino.__version__, "openvino-genai": openvino_genai.__version__}


class _Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Tells of every token; nothing is made text."""

    def __init__(self, seen: Callable[[], None]) -> None:
        super().__init__()
        self.seen = seen

    def write(self, token: Any) -> Any:
        for _ in token if isinstance(token, list) else [token]:
            self.seen()
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""
