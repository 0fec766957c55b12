"""Tensors as the bytes that a checkpoint's files hold: hashed, compared and written over, and never rounded.

What a number means does not matter here, so a tensor is an array of unsigned integers of its numbers' width.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_harness.errors import SourceError
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Shape

Raw = NDArray[np.unsignedinteger[Any]]
"""The bits of a tensor's numbers, in its shape."""


@dataclass(frozen=True)
class Stored:
    """Where the bytes of one tensor lie, and what they are."""

    name: str
    file: Path
    dtype: str
    shape: Shape
    begin: int
    end: int

    def read(self) -> Raw:
        """Its bits; only this tensor is in memory.

        Raises:
            SourceError: the file cannot be read, or its numbers are narrower than a byte.
        """
        count = math.prod(self.shape)
        size = self.end - self.begin
        if count and (size % count or size // count not in (1, 2, 4, 8)):
            raise SourceError(
                f"{self.file}: {self.name} is stored as {self.dtype}, packed below a byte a number. "
                "Quantised checkpoints cannot take a patch: patch the unquantised one and quantise that."
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
        """sha256 of its dtype, its shape and its bytes."""
        return hashlib.sha256(f"{self.dtype} {list(self.shape)} {digest(self.read())}".encode()).hexdigest()

    def write(self, bits: Raw, file: Path) -> None:
        """Put *bits*, in its shape and width, in its place in *file*: a copy of the one that it was found in."""
        with file.open("r+b") as stream:
            stream.seek(self.begin)
            stream.write(np.ascontiguousarray(bits).data)


def digest(bits: Raw) -> str:
    """sha256 of a tensor's bytes as they lie in a safetensors file."""
    return hashlib.sha256(np.ascontiguousarray(bits).data).hexdigest()


def taken(bits: Raw, axis: int, channels: Sequence[int]) -> Raw:
    """The *channels* of a tensor along *axis*; all of it where none are named."""
    return bits.take(list(channels), axis) if channels else bits


def with_channels(bits: Raw, axis: int, channels: Sequence[int], new: Raw) -> Raw:
    """*bits* with *new* written over its *channels*, or *new* where none are named: no second tensor is made."""
    if not channels:
        return new
    place: list[Any] = [slice(None)] * bits.ndim
    place[axis] = list(channels)
    bits[tuple(place)] = new
    return bits


def stored_tensors(checkpoint: Checkpoint) -> Mapping[str, Stored]:
    """Name -> place of every tensor of *checkpoint*.

    Raises:
        SourceError: two of its files hold one tensor, so that nobody can say which of them counts.
    """
    found: dict[str, Stored] = {}
    for shard in checkpoint.shards:
        for stored in stored_in(shard):
            if stored.name in found:
                raise SourceError(
                    f"{stored.name} lies both in {found[stored.name].file} and in {shard.name}. Which of them a loader "
                    "takes is chance: remove one."
                )
            found[stored.name] = stored
    return found


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object.

    Raises:
        ValueError: a key stands there twice.
    """
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"the key {name[:80]!r} stands there twice")
        table[name] = value
    return table


def stored_in(file: Path) -> list[Stored]:
    """The places of the tensors of one safetensors file whose header was checked (:class:`Checkpoint` does).

    Raises:
        SourceError: the header names a tensor twice, so that nobody can say which of them counts.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        text = stream.read(length)
    try:
        header = json.loads(text, object_pairs_hook=once_each)
    except ValueError as error:
        raise SourceError(f"{file}: not a sound safetensors header ({error}). Get the file again.") from error
    start = 8 + length
    return [
        Stored(name, file, about["dtype"], tuple(about["shape"]), *(start + at for at in about["data_offsets"]))
        for name, about in header.items()
        if name != "__metadata__"
    ]


# The bits of the exponent; a number in which all of them are set is an infinity or not a number.
_EXPONENTS = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80, "F8_E5M2": 0x7C}


def is_finite(bits: Raw, dtype: str) -> bool:
    """Whether no number of a tensor of this *dtype* is an infinity or not a number."""
    if dtype == "F8_E4M3":  # has no infinity, and one pattern that is no number
        return not bool(((bits & 0x7F) == 0x7F).any())
    exponent = bits.dtype.type(_EXPONENTS.get(dtype, 0))
    return not exponent or not bool(((bits & exponent) == exponent).any())
