"""The gallery: every schedule at the same bytes, ranked, and where one more would stand."""

from .entries import Entry, Group
from .file import Gallery, Inputs, read_gallery
from .run import Row, add_to_gallery, load_gallery, run_gallery

__all__ = [
    "Entry",
    "Gallery",
    "Group",
    "Inputs",
    "Row",
    "add_to_gallery",
    "load_gallery",
    "read_gallery",
    "run_gallery",
]
