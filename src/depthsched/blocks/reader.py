"""GGUF files, read fast enough to wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

_TOKENS = "tokenizer.ggml.tokens"
_HEAD = "output.weight"


class Reader(GGUFReader):  # type: ignore[misc]
    """gguf's reader on a plain array, in a quarter of the time.

    Every slice of a memory map is a memory map again, and a vocabulary is a million slices.
    """

    @property
    def data(self) -> Any:
        """The bytes of the file, still mapped."""
        return self._plain

    @data.setter
    def data(self, mapped: Any) -> None:
        self._plain = np.asarray(mapped)


def write_without_vocabulary(reader: GGUFReader, path: Path) -> None:
    """A GGUF file from which transformers makes the same configuration, without the seconds that a vocabulary takes.

    It has all values but the vocabulary, the size of that, and a head if the file has one: whether weights are tied
    is read off that.
    """
    architecture = str(reader.fields["general.architecture"].contents())
    writer = GGUFWriter(path, architecture)  # writes the architecture itself
    size = f"{architecture}.vocab_size"
    for name, field in reader.fields.items():
        listed = field.types[:1] == [GGUFValueType.ARRAY]
        # The writer takes no empty array and none of arrays, which have one type and three.
        left_out = listed and (len(field.types) != 2 or name.startswith("tokenizer."))
        if not left_out and not name.startswith(("GGUF.", "general.architecture", "general.alignment")):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if listed else None)
    if size not in reader.fields and _TOKENS in reader.fields:
        writer.add_key_value(size, len(reader.fields[_TOKENS].data), GGUFValueType.UINT32)
    if any(tensor.name == _HEAD for tensor in reader.tensors):
        writer.add_tensor(_HEAD, np.zeros(1, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
