"""Pages of a mapped file that nobody reads any more.

The weights that safetensors loads lie in one mapped file, which stays as long as any of them is used: after a weight
was copied into a fused buffer, its pages would still count as memory of this process.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from pathlib import Path

from torch import Tensor

_MADV_DONTNEED = 4
_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(\S?)")


def clean_mapping(tensor: Tensor) -> range | None:
    """The addresses of the mapped file that holds a tensor, or None.

    None also where a page of the mapping was written to, for such a page would not come back from the file.
    """
    if tensor.device.type != "cpu" or not sys.platform.startswith("linux"):
        return None
    address, found = tensor.data_ptr(), None
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        header = _HEADER.match(line)
        if header:
            low, high, path = int(header[1], 16), int(header[2], 16), header[3]
            found = range(low, high) if path == "/" and low <= address < high else None
        elif found and line.startswith("Anonymous:"):
            return found if line.split()[1] == "0" else None
    return None


def forget(unused: Tensor, mapping: range | None) -> None:
    """Drop a tensor's pages, if it lies in a mapping of :func:`clean_mapping`; who reads it gets them from the file."""
    first = -(-unused.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (unused.data_ptr() + unused.numel() * unused.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if mapping is not None and mapping.start <= first < last <= mapping.stop:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)
