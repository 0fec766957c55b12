"""Read, hash and overwrite tensors as the bytes in a checkpoint's files, so that no number is ever rounded.

The meaning of a number does not matter here: a tensor is an array of unsigned integers as wide as its numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_harness.errors import SourceError
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.header import LONGEST_NAME, READER, header_bytes
from safety_harness.weights.units import Shape

Raw = NDArray[np.unsignedinteger[Any]]
"""The bits of a tensor's numbers, in its shape."""


@dataclass(frozen=True)
class Stored:
    """One tensor in a safetensors file: its dtype and shape, and its bytes from ``begin`` to ``end``."""

    name: str
    file: Path
    dtype: str
    shape: Shape
    begin: int
    end: int

    def read(self) -> Raw:
        """Read the tensor's bits, and nothing else of the file.

        Raises:
            SourceError: the file cannot be read, or the numbers are narrower than a byte.
        """
        count = math.prod(self.shape)
        size = self.end - self.begin
        if count and (size % count or size // count not in (1, 2, 4, 8)):
            raise SourceError(
                f"{self.file}: {self.name} is stored as {self.dtype}, with less than a byte a number. "
                "A quantised checkpoint cannot take a patch: patch the unquantised one, then quantise it."
            )
        try:
            data = np.fromfile(self.file, np.uint8, size, offset=self.begin)
        except OSError as error:
            raise SourceError(f"{self.file}: cannot be read ({error.strerror or error}).") from error
        if len(data) != size:
            raise SourceError(f"{self.file}: is cut short within {self.name}. Get the file again.")
        return data.view(f"u{size // count if count else 1}").reshape(self.shape)

    @property
    def fingerprint(self) -> str:
        """sha256 of the tensor's dtype, shape and bytes."""
        return hashlib.sha256(f"{self.dtype} {list(self.shape)} {digest(self.read())}".encode()).hexdigest()

    def write(self, bits: Raw, file: Path) -> None:
        """Overwrite the tensor with *bits* of its shape and width in *file*, a copy of the file that it is from."""
        with file.open("r+b") as stream:
            stream.seek(self.begin)
            stream.write(np.ascontiguousarray(bits).data)


def digest(bits: Raw) -> str:
    """Return the sha256 of a tensor's bytes as a safetensors file holds them."""
    return hashlib.sha256(np.ascontiguousarray(bits).data).hexdigest()


def taken(bits: Raw, axis: int, channels: Sequence[int]) -> Raw:
    """Return the *channels* of a tensor along *axis*, or the whole tensor if no channels are named."""
    return bits.take(list(channels), axis) if channels else bits


def with_channels(bits: Raw, axis: int, channels: Sequence[int], new: Raw) -> Raw:
    """Overwrite the *channels* of *bits* with *new*, in place. If no channels are named, return *new* itself."""
    if not channels:
        return new
    at: list[Any] = [slice(None)] * bits.ndim
    at[axis] = list(channels)
    bits[tuple(at)] = new
    return bits


def stored_tensors(checkpoint: Checkpoint) -> Mapping[str, Stored]:
    """Return the place of every tensor of *checkpoint*, by name.

    Raises:
        SourceError: as :func:`stored_in`.
    """
    return {stored.name: stored for shard in checkpoint.shards for stored in stored_in(shard)}


def stored_in(file: Path) -> list[Stored]:
    """Return the places of the tensors of one safetensors file whose header was checked, as by :class:`Checkpoint`.

    Raises:
        SourceError: the header names a tensor twice, so nobody can say which of them counts. Or a name is unfit.
    """
    start, text = header_bytes(file)
    header = READER.parse(text.decode("utf-8", errors="replace"), f"{file}, header")
    if unfit := [name for name in header if len(name) > LONGEST_NAME or not name.isprintable()]:
        raise SourceError(
            f"{file}: the tensor {unfit[0][:80]!r} has a name of {len(unfit[0])} characters or with one that shows "
            "nothing, which no patch can hold. Rename it."
        )
    return [
        Stored(name, file, about["dtype"], tuple(about["shape"]), *(start + at for at in about["data_offsets"]))
        for name, about in header.items()
        if name != "__metadata__"
    ]


# The bits of the exponent. A number in which all of them are set is an infinity or a NaN.
_EXPONENTS = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80, "F8_E5M2": 0x7C}


def is_finite(bits: Raw, dtype: str) -> bool:
    """Return whether every number of a tensor of this *dtype* is finite."""
    if dtype == "F8_E4M3":  # has no infinity, and one pattern for a NaN
        return not bool(((bits & 0x7F) == 0x7F).any())
    exponent = bits.dtype.type(_EXPONENTS.get(dtype, 0))
    return not exponent or not bool(((bits & exponent) == exponent).any())
