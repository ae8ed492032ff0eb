"""Vectors of other programs: read into our layers, written in theirs.

Reads and writes bytes with numpy alone: no torch, no safetensors, no gguf, so that pages may use it. Programs number
layers and name sites differently; `formats.FORMATS` says what each means by "layer 8", and nothing is converted
without saying so. `inference.interchange.packages` does the same for objects of repeng and steering-vectors.
"""

from inference.interchange.formats import FORMATS, Format
from inference.interchange.loose import Loose, Placed
from inference.interchange.reading import is_ours, read
from inference.interchange.requests import request_for
from inference.interchange.writing import Written, directions_of, write

__all__ = [
    "FORMATS",
    "Format",
    "Loose",
    "Placed",
    "Written",
    "directions_of",
    "is_ours",
    "read",
    "request_for",
    "write",
]
