"""Read the header of a safetensors file, within limits: it says which tensors follow, and where."""

from __future__ import annotations

import struct
from pathlib import Path

from safety_harness.errors import SourceError
from safety_harness.reading import MIB, Reader

READER = Reader(
    SourceError, missing="missing; a model folder needs it.", no_json="cannot be read as JSON", at_most=32 * MIB
)

# A header of a hundred thousand tensors has about 12 MiB. Parsers take several times its size of memory.
MOST_HEADER = 32 * MIB
# What the manifest of a patch can hold.
LONGEST_NAME = 512


def require_header(file: Path) -> int:
    """Return the length of the header of a safetensors *file*, which must be a file that has room for it.

    Raises:
        SourceError: it is no file, or the header is longer than the file or than any model's.
    """
    size = READER.require(file)
    try:
        with file.open("rb") as stream:
            begin = stream.read(8)
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}). Check its permissions.") from error
    (length,) = struct.unpack("<Q", begin.ljust(8, b"\0"))
    if not 2 <= length <= min(size - 8, MOST_HEADER):
        raise SourceError(
            f"{file}: not a whole safetensors file (its header should have {length} bytes, and the file has {size}). "
            "Download it again."
        )
    return int(length)


def header_bytes(file: Path) -> tuple[int, bytes]:
    """Return where the numbers of a safetensors *file* begin, and the bytes of its header.

    Raises:
        SourceError: as :func:`require_header`.
    """
    length = require_header(file)
    with file.open("rb") as stream:
        stream.seek(8)
        return 8 + length, stream.read(length)
