"""``depthsched doctor --check``: errors and speeds of every backend, and an exit code for scripts."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from depthsched.cli import doctor_check
from depthsched.runtime import backends
from depthsched.runtime.compiled import CudaGraphBackend

from ..runtime.capture_double import CaptureDouble
from ..runtime.engines import plain_kernels
from ..runtime.test_selfcheck import with_kernels, wrong
from ..tiny import make_tiny


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """One tiny model for every name, and the graph engine under the double as its only fast backend."""

    def replace(kernels: Any = plain_kernels, variant: str = "llama") -> None:
        settings = {"kernels": kernels, "capture": CaptureDouble}
        real = backends._choose

        def choose(name: str, *args: Any) -> tuple[Any, str]:
            chosen = real(name, *args)
            return chosen if chosen[0] is None else (functools.partial(CudaGraphBackend, **settings), "asked for")

        monkeypatch.setattr(backends, "_choose", choose)
        monkeypatch.setattr(doctor_check, "load_quietly", lambda *args: (make_tiny(variant), None))

    return replace


def test_every_backend_has_a_row(cli: Callable[..., Any], use: Callable[..., None]) -> None:
    use()
    result = cli("doctor", "--check", "tiny", "--json")
    data = result.json()
    assert result.code == 0
    assert [row["backend"] for row in data["rows"]] == [name for name in backends.BACKENDS if name != "auto"]
    fast = data["rows"][1]
    assert fast["status"] == "ok"
    assert 0 <= fast["error"] <= fast["tolerance"] == 1e-3
    assert fast["tokens_per_second"] > 0 < data["rows"][0]["tokens_per_second"]
    if not torch.cuda.is_available():
        assert data["rows"][2]["status"] == "eager"
        assert "needs a model on a CUDA device" in data["rows"][2]["reason"]
    out = cli("doctor", "--check", "tiny").out
    assert "compiled" in out
    assert "tokens/s" in out


def test_a_backend_that_differs_is_exit_code_1(cli: Callable[..., Any], use: Callable[..., None]) -> None:
    use(with_kernels(layer=wrong))
    result = cli("doctor", "--check", "tiny", "--json")
    assert result.code == 1
    row = result.json()["rows"][1]
    assert row["status"] == "failed"
    assert "differ from eager's" in row["reason"]
    assert row["tokens_per_second"] is None
    plain = cli("doctor", "--check", "tiny")
    assert plain.code == 1
    assert "differ" in plain.out


def test_a_model_that_no_fast_backend_runs_is_no_failure(cli: Callable[..., Any], use: Callable[..., None]) -> None:
    use(variant="olmo2")
    result = cli("doctor", "--check", "tiny", "--json")
    assert result.code == 0
    assert "own layers run" in result.json()["rows"][1]["reason"]


def test_a_model_that_is_not_there_is_one_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    result = cli("doctor", "--check", tmp_path / "nothing")
    assert result.code == 2
    assert "no such model" in result.err
